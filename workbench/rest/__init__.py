"""The Versions API."""
