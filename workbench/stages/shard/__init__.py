"""S5: documents to rows of token ids, some of them rearranged for fill-in-the-middle."""
