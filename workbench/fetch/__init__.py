"""Source code from package indexes, Git, cargo and folders."""
