"""The autoencoder of latent diffusion on emoji at 64 pixels: 8x8 latents of 8 channels.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", section 3.1.
Command: python main.py --config=configs/kl_autoencoder_emoji.py --workdir=runs/kl_autoencoder_emoji
Data: emoji.npz, with train_images (uint8 [N, 64, 64, 3]), train_captions (strings [N]) and the same of test. Here they
    are EmojiOne 2.2.7 on white; any pictures with captions can be used, see docs/data.md.
Hardware and time: two CPU cores, 16 minutes of CPU.
Expected: a PSNR of 22.0 dB and an absolute error of 0.094 a value on 150 held-out emoji.
The reconstruction loss is the absolute error alone. To use LPIPS, if its weights are available, add to a copy
    config.method.perceptual = section(name="lpips", trunk="vgg") and config.init_from.perceptual = "lpips:vgg".
The second stage is configs/latent_diffusion_emoji.py.
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
            latent_channels=8,
            norm_groups=8,
        ),
        kl_weight=1e-6,
    )
    config.data.update(source="npz:emoji.npz", resolution=64, channels=3)
    config.optimizer.update(name="adam", learning_rate=2e-3, b1=0.5, b2=0.99, warmup_images=2_000, decay="cosine")
    config.train.update(
        batch_size=16,
        total_images=24_000,
        log_every_images=2_000,
        checkpoint_every_images=12_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(batch_size=50)
    return config
