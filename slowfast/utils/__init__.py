"""Basics shared by all packages: processes, files, screen and logging, progress, signals, memory."""
