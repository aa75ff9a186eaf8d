"""Safe reader of checkpoint files: detects damage and never executes code from a file."""
