"""Event-camera recordings: reading, sampling, transforms and simulation."""
