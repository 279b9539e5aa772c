"""What the larger commands take: read before PyTorch is, so that ``--help`` answers at once."""
