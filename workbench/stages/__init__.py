"""The nine stages; each a process over files."""
