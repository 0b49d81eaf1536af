"""The mathematics of latent-variable models: Gaussians over latents, likelihoods of images, bounds on log p(x).

No network, no data, no config. All numbers are nats per image: *sums* over latents and over pixels. A mean over pixels
in the reconstruction would make beta a few hundred without saying so.
"""
