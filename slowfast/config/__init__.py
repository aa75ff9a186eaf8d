"""Config: key declarations, the config tree, and merging of YAML files and overrides."""
