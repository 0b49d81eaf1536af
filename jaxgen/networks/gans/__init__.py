"""This room holds generators and discriminators of the adversarial family."""
