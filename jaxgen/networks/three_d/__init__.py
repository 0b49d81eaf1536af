"""Holds networks of three dimensions: generators of planes of features, and discriminators that are told the camera."""
