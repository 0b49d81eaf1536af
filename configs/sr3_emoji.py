"""SR3 on emoji at 64 pixels from copies of 16x16, by diffusion that embeds its noise level.

Paper: Saharia et al. 2021, "Image Super-Resolution via Iterative Refinement".
Command: python main.py --config=configs/sr3_emoji.py --workdir=runs/sr3_emoji
Data: an npz of pictures, as in configs/kl_autoencoder_emoji.py; another source by --config.data.source.
Hardware and time: one core of a CPU, about 50 minutes.
Expected: a PSNR of 22.8 dB on 192 held-out emoji, 3.1 below the regression, and small copies within 0.028.
8x, from copies of 8x8: --config.data.corruptions.condition.factor=8. Its control is configs/regression_emoji.py.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(
            name="unet",
            out_channels=3,
            channels=16,
            channel_multipliers=(1, 2, 4, 4),
            blocks=1,
            attention_resolutions=(8,),
            norm_groups=8,
        ),
        parts=section(low=section(name="image")),
        embed="noise_level",
        timesteps="between_levels",
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
    )
    config.sampler = section(name="ddpm", steps=50)
    config.data.update(source="npz:emoji.npz", resolution=64, channels=3)
    config.data.corruptions.condition = section(name="low_resolution", factor=4)
    config.optimizer.update(learning_rate=2e-3, warmup_images=2_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=16,
        total_images=26_000,
        log_every_images=2_000,
        checkpoint_every_images=8_000,
        sample_every_images=26_000,
        ema_decay=0.998,
    )
    config.evaluate.update(num=160, batch_size=40, metrics=("psnr", "ssim", "hint_error"))
    return config
