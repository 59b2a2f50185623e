"""What the Versions API tells."""
