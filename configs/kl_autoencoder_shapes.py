"""The autoencoder of latent diffusion on captioned shapes at 64 pixels: 8x8 latents of 4 channels.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", section 3.1.
Command: python main.py --config=configs/kl_autoencoder_shapes.py --workdir=runs/kl_autoencoder_shapes
Hardware and time: two CPU cores, 17 minutes on a machine with other work (28 minutes of CPU).
Expected: a PSNR of 31.5 dB and an absolute error of 0.021 a value on held-out scenes; the classifier still recognises
    all shapes, colours and places.
It has no perceptual network. To use LPIPS, if its weights are available, add to a copy
    config.method.perceptual = section(name="lpips", trunk="vgg") and config.init_from.perceptual = "lpips:vgg".
The second stage is configs/latent_diffusion_shapes.py.
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
            channel_multipliers=(1, 2, 4, 4),
            blocks=1,
            latent_channels=4,
            norm_groups=8,
        ),
        discriminator=section(name="patch_discriminator", width=16, layers=2, norm="batch"),
        loss=section(name="hinge"),
        kl_weight=1e-6,
        adversarial_weight=0.5,
        adversarial_start=20_000,
        adaptive_limit=1e4,
    )
    config.data.update(source="caption_shapes", resolution=64, channels=3, num_classes=8)
    config.optimizer.update(name="adam", learning_rate=1e-3, b1=0.5, b2=0.99, warmup_images=2_000, decay="cosine")
    config.train.update(
        batch_size=16,
        total_images=32_000,
        log_every_images=2_000,
        checkpoint_every_images=8_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(real=2000, batch_size=50)
    return config
