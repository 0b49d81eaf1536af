"""A trained model judged: its scores and metrics, what they saw, and a quiz for people."""
