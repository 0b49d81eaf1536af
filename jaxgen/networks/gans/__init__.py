"""Generators and discriminators of the adversarial family."""
