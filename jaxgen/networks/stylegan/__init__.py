"""This room holds the style-based generators, StyleGAN and StyleGAN2, and their discriminator."""
