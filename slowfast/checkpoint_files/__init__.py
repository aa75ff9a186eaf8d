"""Checkpoint files of PyTorch and Paddle, read without running anything in them and checked against damage."""
