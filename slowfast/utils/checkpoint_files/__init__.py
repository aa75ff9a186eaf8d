"""Safe reader of checkpoint files, which detects damage and executes nothing in a file."""
