"""Measures speed and memory, beside another implementation or another way, in one run: see README.md."""
