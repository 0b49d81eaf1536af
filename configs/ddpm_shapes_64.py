"""The control of configs/cascade_shapes.py: shapes of 64x64 pixels from their class, by one model.

It is trained for as long as the three stages of the cascade together.

Paper: Ho & Salimans 2022, "Classifier-Free Diffusion Guidance".
Command: python main.py --config=configs/ddpm_shapes_64.py --workdir=runs/ddpm_shapes_64
Hardware and time: one CPU core, 15 minutes.
Expected: a Fréchet distance of 49 (real images: 4.5) and a class accuracy of 0.19 (docs/cascades.md).
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
        label_dropout=0.1,
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
    )
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.guidance = section(name="classifier_free", scale=1.5)
    config.data.update(source="caption_shapes", resolution=64, channels=3, num_classes=8)
    config.optimizer.update(learning_rate=2e-3, warmup_images=2_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=16,
        total_images=24_000,
        log_every_images=2_000,
        checkpoint_every_images=6_000,
        sample_every_images=24_000,
        ema_decay=0.998,
    )
    config.evaluate.update(num=200, real=2000, batch_size=50, metrics=())
    return config
