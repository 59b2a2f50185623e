"""What code in agents/ may import."""
