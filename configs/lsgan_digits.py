"""LSGAN on 8x8 digits: least squares instead of cross-entropy.

Paper: Mao et al. 2017, "Least Squares Generative Adversarial Networks".
Command: python main.py --config=configs/lsgan_digits.py --workdir=runs/lsgan_digits
Hardware and time: at most two CPU-minutes with compilation.
Expected: an excess Fréchet distance of 0.013 (docs/results.md).
"""

from configs import gan_digits


def get_config():
    config = gan_digits.get_config()
    config.method.loss.name = "least_squares"
    return config
