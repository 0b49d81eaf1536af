"""Understands folders of pictures: what is in them, what belongs together, and what is told about it."""
