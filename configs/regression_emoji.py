"""The control of sr3_emoji: emoji at 64 pixels from copies of 16x16, by one pass of the same network.

It minimises the squared error, so that its PSNR is higher than that of SR3 and its images are blurred.

Paper: Saharia et al. 2021, "Image Super-Resolution via Iterative Refinement".
Command: python main.py --config=configs/regression_emoji.py --workdir=runs/regression_emoji
Data: an npz of pictures, as in configs/kl_autoencoder_emoji.py; another source by --config.data.source.
Hardware and time: one core of a CPU, about 50 minutes.
Expected: a PSNR of 26.0 dB on 192 held-out emoji, and small copies within 0.020.
8x, from copies of 8x8: --config.data.corruptions.condition.factor=8.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="regression",
        network=section(  # that of configs/sr3_emoji.py
            name="unet",
            out_channels=3,
            channels=16,
            channel_multipliers=(1, 2, 4, 4),
            blocks=1,
            attention_resolutions=(8,),
            norm_groups=8,
        ),
        parts=section(low=section(name="image")),
    )
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
