"""Training, testing, checkpoints and the state of a run."""
