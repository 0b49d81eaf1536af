"""Latent diffusion on Fashion-MNIST (28x28, through TFDS): a small DiT on the 7x7 latents of an autoencoder.

Papers: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models"; Peebles & Xie 2023,
    "Scalable Diffusion Models with Transformers".
Command: python main.py --config=configs/latent_diffusion_fashion_mnist.py --workdir=runs/latent_diffusion_fashion_mnist
    after the command of configs/kl_autoencoder_fashion_mnist.py.
Data: the data must be prepared first, see docs/data.md.
Hardware and time: two CPU cores, about 10 minutes.
Expected: unknown, since it has not been run to its end yet; two minutes for both stages give an excess Fréchet distance
    of 0.154 (docs/results.md).
"""

from jaxgen.config import SAMPLE_METRICS, defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="latent_diffusion",
        autoencoder=section(  # the autoencoder of configs/kl_autoencoder_fashion_mnist.py
            name="autoencoder_kl",
            out_channels=1,
            channels=16,
            channel_multipliers=(1, 2, 2),
            blocks=1,
            latent_channels=4,
            norm_groups=8,
        ),
        network=section(name="dit", out_channels=4, patch_size=1, width=96, depth=6, heads=6),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
        decode_batch=50,
    )
    config.sampler = section(name="ddim", steps=50, clip=False)
    config.init_from.autoencoder = "runs/kl_autoencoder_fashion_mnist"
    config.data.update(source="tfds:fashion_mnist", resolution=28, channels=1)
    config.optimizer.update(
        name="adamw", learning_rate=2e-3, warmup_images=10_000, decay="cosine", clip_norm=1.0, weight_decay=1e-4
    )
    config.train.update(
        batch_size=64,
        total_images=300_000,
        log_every_images=10_000,
        checkpoint_every_images=100_000,
        sample_every_images=100_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=1000, batch_size=100, network="fashion", metrics=(*SAMPLE_METRICS, "memorisation"))
    return config
