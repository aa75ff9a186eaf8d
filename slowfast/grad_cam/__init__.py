"""Where a network looks: Grad-CAM (arXiv 1610.02391) for any network."""
