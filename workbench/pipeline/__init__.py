"""Plans, action keys, reasons and the walk of a pipeline."""
