"""Demo datasets: rendered clips, images and event recordings with learnable classes."""
