"""Reading and writing the document files that stages exchange."""
