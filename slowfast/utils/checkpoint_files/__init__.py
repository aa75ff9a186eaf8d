"""Restricted reader of checkpoint files: damage is found, and nothing in a file is executed."""
