"""Config: declarations of all keys, the config tree, and the YAML files and overrides merged into it."""
