"""The last stage of configs/cascade_shapes.py: shapes of 64x64 pixels from copies of 32x32 and their class.

Half of the copies are blurred, which is the paper's conditioning augmentation for high resolutions (section 4.2).
Without it: --config.method.parts.low.blur="(0.0,0.0)".

Paper: Ho et al. 2022, "Cascaded Diffusion Models for High Fidelity Image Generation".
Command: python main.py --config=configs/cascade_shapes_64.py --workdir=runs/cascade_shapes_64
Hardware and time: one CPU core, 8 minutes.
Expected: it is judged in the chain, see docs/cascades.md.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(
            name="unet",
            out_channels=3,
            channels=8,
            channel_multipliers=(1, 2, 4, 4),
            blocks=1,
            attention_resolutions=(8,),
            norm_groups=8,
        ),
        parts=section(low=section(name="image", blur=(0.4, 0.6))),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
    )
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.data.update(source="caption_shapes", resolution=64, channels=3, num_classes=8)
    config.data.corruptions.condition = section(name="low_resolution", factor=2)
    config.optimizer.update(learning_rate=2e-3, warmup_images=2_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=16,
        total_images=24_000,
        log_every_images=2_000,
        checkpoint_every_images=6_000,
        sample_every_images=24_000,
        ema_decay=0.998,
    )
    config.evaluate.update(num=200, real=2000, batch_size=50, metrics=("psnr", "hint_error"))
    return config
