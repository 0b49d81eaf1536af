"""This room holds the mathematics of latent-variable models: Gaussians over latents, likelihoods, bounds on log p(x).

Nothing here knows of networks, data or configs. All numbers are nats per image: *sums* over latents and over pixels. If
the reconstruction were a mean over pixels, a beta of 1 would act like one of a few hundred.
"""
