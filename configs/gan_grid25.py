"""A non-saturating GAN on a grid of 5 x 5 Gaussians: a game whose data are known.

Paper: Goodfellow et al. 2014, "Generative Adversarial Nets"; the grid as in Dumoulin et al. 2017 (ALI).
Command: python main.py --config=configs/gan_grid25.py --workdir=runs/gan_grid25
Other losses: --config.method.loss.name=minimax (least_squares, hinge). All of them, with the modes that they cover and
pictures of the discriminator's surface: python -m studies.gan_toys --out=runs/gan_toys.
Hardware and time: two CPU cores, under two minutes.
Expected: docs/results.md.
"""

from configs import gan_ring8


def get_config():
    config = gan_ring8.get_config()
    config.data.update(source="gaussians:grid25", num_classes=25)
    return config
