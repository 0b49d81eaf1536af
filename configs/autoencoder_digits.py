"""A denoising autoencoder on 8x8 digits; a classifier can use its encoder, and its error detects outliers.

Paper: Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders".
Command: python main.py --config=configs/autoencoder_digits.py --workdir=runs/autoencoder_digits
Hardware and time: two CPU cores, three quarters of a minute of CPU.
Expected: a squared error of 2.9 for a held-out digit (64 values in [-1, 1]) and of 2.2 for a training digit.
    studies/autoencoder_uses.py and docs/results.md show its uses.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="autoencoder",
        encoder=section(name="encoder", widths=(32, 64), hidden=(128,)),
        decoder=section(name="decoder", widths=(64, 32), hidden=(128,)),
        z_dim=32,
        noise=0.8,
    )
    config.data.update(source="digits", resolution=8, channels=1)
    config.optimizer.update(name="adam", learning_rate=2e-3, decay="cosine", warmup_images=2_000)
    config.train.update(
        batch_size=64,
        total_images=200_000,
        log_every_images=5_000,
        checkpoint_every_images=100_000,
        sample_every_images=0,
        ema_decay=0.999,
    )
    return config
