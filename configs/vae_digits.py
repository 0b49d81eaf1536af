"""A variational autoencoder on 8x8 digits.

Paper: Kingma & Welling 2014, "Auto-Encoding Variational Bayes".
Command: python main.py --config=configs/vae_digits.py --workdir=runs/vae_digits
Hardware and time: two CPU cores, about three quarters of a minute of CPU.
Expected: at most 12.97 nats for a held-out digit by the ELBO, 10.27 by importance weights (k = 50), all 8 latents
    active; a Fréchet distance of 1.74 in the digits classifier's features (real 0.103, noise 13.4: excess 0.123).
"""

from jaxgen.config import SAMPLE_METRICS, defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="vae",
        encoder=section(name="encoder", widths=(16, 32), hidden=(128,)),
        decoder=section(name="decoder", widths=(32, 16), hidden=(128,)),
        z_dim=8,
        likelihood=section(name="gaussian", std=0.3),
        importance_samples=50,
    )
    config.data.update(source="digits", resolution=8, channels=1)
    config.optimizer.update(name="adam", learning_rate=2e-3, decay="cosine", warmup_images=5_000)
    config.train.update(
        batch_size=64,
        total_images=250_000,
        log_every_images=5_000,
        checkpoint_every_images=100_000,
        sample_every_images=50_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=1000, batch_size=100, network="digits", metrics=(*SAMPLE_METRICS, "memorisation"))
    return config
