"""Payload: large and many files in Git, the artifacts that hold them, and what is built on them."""
