"""This room holds autoencoders, plain and variational: one file a method."""
