"""EBGAN with the pulling-away term on 8x8 digits: the discriminator is an autoencoder.

Paper: Zhao et al. 2017, "Energy-based Generative Adversarial Network".
Command: python main.py --config=configs/ebgan_digits.py --workdir=runs/ebgan_digits
Hardware and time: at most two CPU-minutes with compilation.
Expected: an excess Fréchet distance of 0.010 and energies of 0.26 (real) and 0.32 (fake) (docs/results.md).
"""

from jaxgen.config import SAMPLE_METRICS, defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ebgan",
        generator=section(name="dcgan_generator", z_dim=32, channels=32, extra=1),
        discriminator=section(name="energy_autoencoder", channels=32, extra=1, codes=16),
        loss=section(name="energy_margin", margin=0.5),
        pull_away=0.01,  # the paper's 0.1 suits its energies of up to 10; energies here are 0.5 (with 0.1: excess 0.69)
    )
    config.data.update(source="digits", resolution=8, channels=1, num_classes=10)
    config.optimizer.update(name="adam", learning_rate=1e-3, b1=0.5, b2=0.99)
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
