"""This room evaluates a trained model: its scores and metrics, what they saw, and a quiz for people."""
