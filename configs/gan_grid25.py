"""A non-saturating GAN on a grid of 5 x 5 Gaussians, a toy problem whose distribution is known.

Paper: Goodfellow et al. 2014, "Generative Adversarial Nets"; the grid as in Dumoulin et al. 2017 (ALI).
Command: python main.py --config=configs/gan_grid25.py --workdir=runs/gan_grid25
For other losses: --config.method.loss.name=minimax (or least_squares, hinge). `python -m studies.gan_toys
--out=runs/gan_toys` trains all of them, counts the modes that they cover and draws the discriminator's surface.
Hardware and time: two CPU cores, under two minutes.
Expected: the numbers of docs/results.md.
"""

from configs import gan_ring8


def get_config():
    config = gan_ring8.get_config()
    config.data.update(source="gaussians:grid25", num_classes=25)
    return config
