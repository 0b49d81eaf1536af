"""This room holds conditions, what a diffusion model is told: a label, a text, an image, an embedding."""
