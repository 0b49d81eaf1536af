"""The autoencoder of the text-to-image model that is tuned: textured shapes at 64 pixels, 16x16 latents.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", section 3.1.
Command: python main.py --config=configs/kl_autoencoder_concepts.py --workdir=runs/kl_autoencoder_concepts
Hardware and time: two CPU cores, 20 minutes of CPU (14 minutes beside other work).
Expected: a PSNR of 32.8 dB on held-out scenes; a classifier still tells shape, colour, texture and place of each.
No image of its data has a ring, stripes or purple. The second stage is configs/latent_diffusion_concepts.py.
"""

from jaxgen.config import defaults, section

NETWORK = dict(
    name="autoencoder_kl",
    out_channels=3,
    channels=16,
    channel_multipliers=(1, 2, 4),
    blocks=1,
    latent_channels=4,
    norm_groups=8,
)


def get_config():
    config = defaults()
    config.method = section(
        name="kl_autoencoder",
        network=section(**NETWORK),
        discriminator=section(name="patch_discriminator", width=16, layers=2, norm="batch"),
        loss=section(name="hinge"),
        kl_weight=1e-6,
        adversarial_weight=0.5,
        adversarial_start=16_000,
        adaptive_limit=1e4,
    )
    config.data.update(source="concept_shapes", resolution=64, channels=3, num_classes=8)
    config.optimizer.update(name="adam", learning_rate=1e-3, b1=0.5, b2=0.99, warmup_images=2_000, decay="cosine")
    config.train.update(
        batch_size=16,
        total_images=24_000,
        log_every_images=2_000,
        checkpoint_every_images=8_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(real=2000, batch_size=50)
    return config
