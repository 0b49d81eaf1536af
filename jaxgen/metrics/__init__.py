"""Judges: pure functions from features or images to numbers, in float64."""
