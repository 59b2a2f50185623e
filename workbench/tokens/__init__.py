"""SentencePiece tokenizers and their control tokens."""
