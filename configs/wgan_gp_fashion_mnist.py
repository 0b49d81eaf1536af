"""WGAN-GP on Fashion-MNIST (28x28, through TFDS), small enough for two CPU cores.

Paper: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs".
Command: python main.py --config=configs/wgan_gp_fashion_mnist.py --workdir=runs/wgan_gp_fashion_mnist
Data: the data must be prepared first, see docs/data.md.
Hardware and time: two CPU cores, at most 20 minutes. On a GPU, widen both networks:
    --config.method.generator.channels=64 --config.method.discriminator.channels=64
Expected: after 600,000 images (8 CPU-minutes) an excess Fréchet distance of 0.182.
"""

from jaxgen.config import SAMPLE_METRICS, defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="wgan_gp",
        generator=section(name="dcgan_generator", z_dim=64, channels=32),
        discriminator=section(name="dcgan_discriminator", channels=32, norm="layer"),
    )
    config.data.update(source="tfds:fashion_mnist", resolution=28, channels=1, num_classes=10)
    config.optimizer.update(name="adam", learning_rate=2e-4, b1=0.0, b2=0.9)
    config.train.update(
        batch_size=64,
        total_images=1_200_000,
        log_every_images=20_000,
        checkpoint_every_images=200_000,
        sample_every_images=200_000,
        evaluate_every_images=200_000,
        keep_best=1,
        best_metric="frechet_fashion",
        ema_decay=0.999,
    )
    config.evaluate.update(num=5000, batch_size=250, network="fashion", metrics=SAMPLE_METRICS)
    return config
