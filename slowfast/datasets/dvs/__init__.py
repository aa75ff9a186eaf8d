"""Event camera (DVS) recordings: reading, sampling, augmentation and simulation."""
