"""Benchmarks: throughput of the pipeline and of the networks on this machine."""
