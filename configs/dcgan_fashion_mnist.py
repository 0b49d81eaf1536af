"""DCGAN on Fashion-MNIST (28x28, through TFDS), small enough for two CPU cores.

Paper: Radford et al. 2016, "Unsupervised Representation Learning with Deep Convolutional GANs".
Command: python main.py --config=configs/dcgan_fashion_mnist.py --workdir=runs/dcgan_fashion_mnist
Data: the data must be prepared first, see docs/data.md.
Hardware and time: two CPU cores, at most 20 minutes. On a GPU, widen both networks:
    --config.method.generator.channels=64 --config.method.discriminator.channels=64
Expected: after 300,000 images (5 CPU-minutes) an excess Fréchet distance of 0.170.
"""

from jaxgen.config import SAMPLE_METRICS, defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="gan",
        generator=section(name="dcgan_generator", z_dim=64, channels=32),
        discriminator=section(name="dcgan_discriminator", channels=32),
        loss=section(name="non_saturating"),
    )
    config.data.update(source="tfds:fashion_mnist", resolution=28, channels=1, num_classes=10)
    config.optimizer.update(name="adam", learning_rate=2e-4, b1=0.5, b2=0.999)
    config.train.update(
        batch_size=64,
        total_images=600_000,
        log_every_images=10_000,
        checkpoint_every_images=100_000,
        sample_every_images=100_000,
        evaluate_every_images=100_000,
        keep_best=1,
        best_metric="frechet_fashion",
        ema_decay=0.999,
    )
    config.evaluate.update(num=5000, batch_size=250, network="fashion", metrics=SAMPLE_METRICS)
    return config
