"""Text to token ids and back, fill-in-the-middle, and the shard files that hold ids. Not here: the stages."""
