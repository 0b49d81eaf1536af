"""This room holds generative adversarial networks: one file a method."""
