"""DDPM on shapes (32x32), one coloured shape on black, unconditional: SDEdit is measured on it.

Paper: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", with a cosine schedule and v-prediction.
Command: python main.py --config=configs/ddpm_shapes.py --workdir=runs/ddpm_shapes; then as studies/sdedit_curve.py says
Hardware and time: two CPU cores, 9 minutes (8 minutes of CPU).
Expected: a denoising loss of 0.048. Samples are ragged shapes of one colour; the Fréchet distance of 200 of them in the
    features of configs/classifier_shapes.py is 19.1, that of as many real images 6.7 (docs/editing.md).
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
            channel_multipliers=(1, 2, 4),
            blocks=1,
            attention_resolutions=(8,),
            norm_groups=8,
            num_classes=0,
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
    )
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.data.update(source="caption_shapes", resolution=32, channels=3, num_classes=8)
    config.optimizer.update(
        name="adamw", learning_rate=2e-3, warmup_images=2_000, decay="cosine", clip_norm=1.0, weight_decay=1e-4
    )
    config.train.update(
        batch_size=32,
        total_images=32_000,
        log_every_images=4_000,
        checkpoint_every_images=8_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(num=200, real=1000, batch_size=50, metrics=("memorisation",))
    return config
