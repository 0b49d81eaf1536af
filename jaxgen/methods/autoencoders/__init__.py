"""Autoencoders, plain and variational: one file a method."""
