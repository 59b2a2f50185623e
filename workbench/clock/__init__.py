"""Time and ULIDs."""
