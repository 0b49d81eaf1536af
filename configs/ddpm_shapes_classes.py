"""Class-conditional DDPM on coloured shapes (32x32): every image is drawn by a program from its number.

Paper: Ho & Salimans 2022, "Classifier-Free Diffusion Guidance".
Command: python main.py --config=configs/ddpm_shapes_classes.py --workdir=runs/ddpm_shapes_classes
Hardware and time: two CPU cores, about 45 minutes.
Expected: unknown, since it has not been run to its end yet.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(
            name="unet",
            out_channels=3,
            channels=32,
            channel_multipliers=(1, 2, 2),
            blocks=1,
            attention_resolutions=(8,),
            norm_groups=8,
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
        label_dropout=0.1,
    )
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.guidance = section(name="classifier_free", scale=2.0)
    config.data.update(source="shapes", resolution=32, channels=3, num_classes=8)
    config.optimizer.update(learning_rate=1e-3, warmup_images=10_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=32,
        total_images=96_000,
        log_every_images=5_000,
        checkpoint_every_images=16_000,
        sample_every_images=16_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=200, real=2000, batch_size=50, metrics=("memorisation",))
    return config
