"""Preparation of datasets: re-encoding videos, extracting frames, converting recordings, simulating events."""
