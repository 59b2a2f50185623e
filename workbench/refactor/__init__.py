"""Structural search and rewriting with ast-grep."""
