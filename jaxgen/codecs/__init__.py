"""This room holds codecs, which say what a diffusion method diffuses: pixels, or the latents of an autoencoder."""
