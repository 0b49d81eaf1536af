"""A variational autoencoder on Fashion-MNIST (28x28, through TFDS) with a Gaussian likelihood.

Paper: Kingma & Welling 2014, "Auto-Encoding Variational Bayes".
Command: python main.py --config=configs/vae_fashion_mnist.py --workdir=runs/vae_fashion_mnist
Data: the data must be prepared first, see docs/data.md.
Hardware and time: two CPU cores, 80 seconds of CPU.
Expected: 512.6 nats for a test image by the ELBO, 510.4 by importance weights (k = 10), 32 active latents; blurred
    clothes with a Fréchet distance of 13.3 in the Fashion-MNIST classifier's features (real 0.28, noise 45.7: excess
    0.29).
"""

from jaxgen.config import SAMPLE_METRICS, defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="vae",
        encoder=section(name="encoder", widths=(), hidden=(512, 256)),
        decoder=section(name="decoder", widths=(), hidden=(256, 512)),
        z_dim=32,
        likelihood=section(name="gaussian", std=0.7),
        warmup_images=30_000,
        importance_samples=10,
    )
    config.data.update(source="tfds:fashion_mnist", resolution=28, channels=1)
    config.optimizer.update(name="adam", learning_rate=1e-3, decay="cosine")
    config.train.update(
        batch_size=100,
        total_images=300_000,
        log_every_images=10_000,
        checkpoint_every_images=150_000,
        sample_every_images=150_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=1000, batch_size=250, network="fashion", metrics=(*SAMPLE_METRICS, "memorisation"))
    return config
