"""Training on a CPU: a readable loop, data that needs no download, checkpoints, and the papers' claims in miniature."""
