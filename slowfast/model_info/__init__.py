"""What the published settings under configs/ are: counted sizes, published figures, weights."""
