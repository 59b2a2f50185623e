"""Serving the tools of one pinned version."""
