"""Parts of `benchmarks/gpu_check.py`: tests and benchmarks that need a GPU."""
