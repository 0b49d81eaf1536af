"""Reads weights from other ecosystems and writes weights for them, with pure functions on dicts of numpy arrays."""
