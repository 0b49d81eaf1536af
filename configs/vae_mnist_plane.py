"""A variational autoencoder with two latents on MNIST, so that one picture shows its latent space.

Paper: Kingma & Welling 2014, "Auto-Encoding Variational Bayes", Figure 4.
Command: python main.py --config=configs/vae_mnist_plane.py --workdir=runs/vae_mnist_plane
Data: the data must be prepared first, see docs/data.md.
Hardware and time: two CPU cores, 80 seconds of CPU.
Expected: samples/panel_manifold.png shows every digit; the negative bound is 145.5 nats on the test images (they have
    grey pixels, so it bounds no probability of an image), and both latents are active.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="vae",
        encoder=section(name="encoder", widths=(), hidden=(400, 200)),
        decoder=section(name="decoder", widths=(), hidden=(200, 400)),
        z_dim=2,
        likelihood=section(name="bernoulli", draw=False),
    )
    config.data.update(source="tfds:mnist", resolution=28, channels=1)
    config.optimizer.update(name="adam", learning_rate=1e-3, decay="cosine")
    config.train.update(
        batch_size=100,
        total_images=600_000,
        log_every_images=20_000,
        checkpoint_every_images=300_000,
        sample_every_images=300_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=1000, batch_size=250, metrics=("memorisation",))
    return config
