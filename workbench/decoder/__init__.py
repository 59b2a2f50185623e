"""The Llama-shaped decoder in torch, its configuration and its weights."""
