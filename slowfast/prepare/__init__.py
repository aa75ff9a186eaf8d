"""Re-encoding a collection of videos so that training clips are read from it fast."""
