"""This room holds diffusion models, of pixels and of latents: one file a method."""
