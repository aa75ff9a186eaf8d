"""How fast the pipeline and the networks are on this machine: what `tools/benchmark.py` measures."""
