"""Generative adversarial networks: one file a method."""
