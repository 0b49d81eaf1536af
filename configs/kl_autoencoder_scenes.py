"""A variational autoencoder of `scenes` at 32 pixels, a control of configs/segmentation_shapes.py.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", section 3.1, whose networks
    and loss it has, without the discriminator.
Command: python main.py --config=configs/kl_autoencoder_scenes.py --workdir=runs/kl_autoencoder_scenes
Hardware and time: two CPU cores, 5 minutes on a machine with other work.
Expected: an absolute error of 0.22 a value in training. Its features are measured in docs/segmentation.md.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="kl_autoencoder",
        network=section(
            name="autoencoder_kl",
            out_channels=3,
            channels=16,
            channel_multipliers=(1, 2, 4),
            blocks=1,
            latent_channels=4,
            norm_groups=8,
        ),
        kl_weight=1e-4,
    )
    config.data.update(source="scenes:circle,square,triangle,cross", resolution=32, channels=3)
    config.optimizer.update(name="adam", learning_rate=1e-3, b1=0.5, b2=0.99, warmup_images=2_000, decay="cosine")
    config.train.update(
        batch_size=32,
        total_images=16_000,
        log_every_images=2_000,
        checkpoint_every_images=4_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(real=1000, batch_size=50)
    return config
