"""A run: what its config makes, its state, its folder, checkpoints and logs, and weights that come from elsewhere."""
