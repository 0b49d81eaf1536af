"""This room holds a run: what its config makes, its state, its folder, checkpoints and logs, and loaded weights."""
