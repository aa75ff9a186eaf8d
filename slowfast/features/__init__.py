"""What a network's head sees of each clip of an index, written to one file."""
