"""Parts of `benchmarks/gpu_check.py`: what can only be tested and measured on a GPU."""
