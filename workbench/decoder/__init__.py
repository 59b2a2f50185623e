"""A Llama-shaped decoder in torch: shape, forward pass, weights on disk, generation. Not here: training."""
