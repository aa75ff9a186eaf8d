"""Event cameras: indices, reading, repairing, sampling and augmenting streams of events."""
