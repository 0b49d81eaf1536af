"""A trained model evaluated: its scores and metrics, what they saw, and a quiz for people."""
