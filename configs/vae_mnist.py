"""A variational autoencoder on MNIST, with the network and likelihood of the paper on importance weights.

Paper: Burda et al. 2016, "Importance Weighted Autoencoders": one stochastic layer of 50 units, two layers of 200 tanh
    units in each network, pixels drawn as black or white again each time. The paper has 86.76 nats (k = 5,000) after
    3,280 epochs with batches of 20; its IWAE, which is method.samples=5 and 50 here, has 85.54 and 84.78 nats. As in
    its code, the encoder sees black as 0 and the decoder starts at the mean image.
Command: python main.py --config=configs/vae_mnist.py --workdir=runs/vae_mnist
    python -m studies.vae_numbers --workdir=runs/vae_mnist --samples=5000 --out=numbers.jsonl
Data: the data must be prepared first, see docs/data.md.
Hardware and time: two CPU cores, 12 minutes without other work.
Expected: 93.0 nats by the ELBO on the 10,000 test images, 89.0 by k = 500, 23 active latents.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="vae",
        encoder=section(name="encoder", widths=(), hidden=(200, 200), activation="tanh", unit_range=True),
        decoder=section(name="decoder", widths=(), hidden=(200, 200), activation="tanh"),
        z_dim=50,
        likelihood=section(name="bernoulli", draw=True),
        start_at_mean=True,
    )
    config.data.update(source="tfds:mnist", resolution=28, channels=1)
    config.optimizer.update(name="adam", learning_rate=1e-3, eps=1e-4, decay="cosine")
    config.mesh.data = 1  # a step takes milliseconds, so several devices would mostly wait for each other
    config.train.update(
        batch_size=100,
        total_images=12_000_000,
        log_every_images=60_000,
        checkpoint_every_images=1_200_000,
        sample_every_images=2_400_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=1000, batch_size=250, metrics=("memorisation",))
    return config
