"""Weights in from, and out to, other ecosystems: pure functions on dicts of numpy arrays."""
