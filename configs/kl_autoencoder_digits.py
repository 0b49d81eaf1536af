"""The autoencoder of latent diffusion on 8x8 digits: 4x4 latents, a perceptual distance and a PatchGAN.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", section 3.1.
Command: python main.py --config=configs/kl_autoencoder_digits.py --workdir=runs/kl_autoencoder_digits
Hardware and time: two busy CPU cores, 5 minutes.
Expected: a PSNR of 27.4 dB, an absolute error of 0.055 a value and a feature distance of 0.012 on the 500 held-out
    digits.
The second stage is configs/latent_diffusion_digits.py. To train with the absolute error alone, as a control:
    --config.method.perceptual_weight=0.0 --config.method.adversarial_weight=0.0
The perceptual network is the classifier of digits that comes with the package. Distances in its features are trained
directly, so they are a weaker evidence of quality here than for other models.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="kl_autoencoder",
        network=section(
            name="autoencoder_kl",
            out_channels=1,
            channels=16,
            channel_multipliers=(1, 2),
            blocks=1,
            latent_channels=2,
            norm_groups=8,
        ),
        discriminator=section(name="patch_discriminator", width=16, layers=1, norm="batch"),
        perceptual=section(name="classifier", widths=(12, 16, 16), features=32),
        loss=section(name="hinge"),
        perceptual_weight=1.0,
        kl_weight=1e-6,
        adversarial_weight=0.5,
        adversarial_start=50_000,
        adaptive_limit=1e4,
    )
    config.init_from.perceptual = "classifier:digits"
    config.data.update(source="digits", resolution=8, channels=1, num_classes=10)
    config.optimizer.update(name="adam", learning_rate=1e-3, b1=0.5, b2=0.99, warmup_images=2_000, decay="cosine")
    config.train.update(
        batch_size=64,
        total_images=130_000,
        log_every_images=5_000,
        checkpoint_every_images=60_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(batch_size=100)
    return config
