"""The Git repository as the only store."""
