"""What the operating system is asked for in one way only: durable writes, locks, temporary folders."""
