"""The memory adapter: the same ports over dictionaries, with real Git ids, for tests."""
