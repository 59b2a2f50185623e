"""S4: a SentencePiece BPE tokenizer from a dataset, proven lossless over all of it."""
