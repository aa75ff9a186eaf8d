"""Config tree: defaults, merging, and the rules of single values."""
