"""WGAN with clipped weights on 8x8 digits.

Paper: Arjovsky et al. 2017, "Wasserstein GAN".
Command: python main.py --config=configs/wgan_digits.py --workdir=runs/wgan_digits
Hardware and time: at most two CPU-minutes with compilation.
Expected: an excess Fréchet distance of 0.13 (docs/results.md).
"""

from jaxgen.config import SAMPLE_METRICS, defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="wgan",
        generator=section(name="dcgan_generator", z_dim=32, channels=32, extra=1),
        discriminator=section(name="dcgan_discriminator", channels=32, extra=1, norm="layer"),
    )
    config.data.update(source="digits", resolution=8, channels=1, num_classes=10)
    config.optimizer.update(name="rmsprop", learning_rate=5e-4)
    config.optimizers.discriminator = section(clip_weights=0.01)
    config.train.update(
        batch_size=64,
        total_images=250_000,
        log_every_images=5_000,
        checkpoint_every_images=100_000,
        sample_every_images=50_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=1000, batch_size=128, network="digits", metrics=(*SAMPLE_METRICS, "memorisation"))
    return config
