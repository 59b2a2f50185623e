"""The tuned state of an agent: schema, reading, pinning."""
