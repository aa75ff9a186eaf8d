"""A network as one file for other programs: torch.export or ONNX, checked against the network."""
