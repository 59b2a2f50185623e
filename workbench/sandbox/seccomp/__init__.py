"""The system-call filter as bytes, one file per architecture, and the program that makes them (``generate``)."""
