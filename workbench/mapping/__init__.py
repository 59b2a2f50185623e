"""Pure functions over many processes."""
