"""Index files: the samples of a dataset and their labels."""
