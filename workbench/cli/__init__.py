"""The commands: thin entrances over ``app``. ``entry`` decides what to import; ``status`` imports next to nothing."""
