"""What was asked? The calls of the browser library, kept by unit of work."""
