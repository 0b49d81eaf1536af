"""A conditional variational autoencoder on 8x8 digits: both networks see the class.

Paper: Sohn et al. 2015, "Learning Structured Output Representation using Deep Conditional Generative Models".
Command: python main.py --config=configs/vae_digits_classes.py --workdir=runs/vae_digits_classes
Hardware and time: two CPU cores, three quarters of a minute of CPU.
Expected: a label accuracy of 0.992, a Fréchet distance of 0.240 in the digits classifier's features (real 0.103,
    noise 13.4: excess 0.0103); at most 8.00 nats for a held-out digit by the ELBO, 5.76 by importance weights (k = 50).
"""

from configs import vae_digits


def get_config():
    config = vae_digits.get_config()
    config.data.num_classes = 10
    for network in (config.method.encoder, config.method.decoder):
        network.num_classes = 10
    config.evaluate.metrics += ("label_accuracy",)
    return config
