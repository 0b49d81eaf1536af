"""DDPM on Fashion-MNIST (28x28, through TFDS), small enough for two CPU cores.

Paper: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", with a cosine schedule and v-prediction.
Command: python main.py --config=configs/ddpm_fashion_mnist.py --workdir=runs/ddpm_fashion_mnist
Data: the data must be prepared first, see docs/data.md.
Hardware and time: two CPU cores, about 20 minutes. On a GPU, widen it: --config.method.network.channels=64.
Expected: clothes that a person recognises, a denoising loss of 0.160 on the test images, and an excess Fréchet
    distance of 0.082 for 500 samples in the features of Fashion-MNIST's classifier (docs/results.md).
"""

from configs import ddpm_mnist
from jaxgen.config import SAMPLE_METRICS


def get_config():
    config = ddpm_mnist.get_config()
    config.data.source = "tfds:fashion_mnist"
    config.evaluate.update(network="fashion", metrics=(*SAMPLE_METRICS, "memorisation"))
    return config
