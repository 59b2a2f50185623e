"""Models served by llama.cpp."""
