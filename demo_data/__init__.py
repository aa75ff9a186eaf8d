"""Demo data: clips, images and event recordings with learnable classes, made on this machine."""
