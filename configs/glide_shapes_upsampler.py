"""GLIDE's upsampler: captioned shapes of 64 pixels from copies of 32 pixels and the text.

Noise on the copies, whose level the network is told, makes them like what the base model draws (docs/cascades.md).

Paper: Nichol et al. 2022, "GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided Diffusion
    Models".
Command: python main.py --config=configs/glide_shapes_upsampler.py --workdir=runs/glide_shapes_upsampler
Hardware and time: two CPU cores, about 15 minutes of CPU, which is an estimate.
Expected: it is judged in the chain, configs/glide_shapes_64.py; not recorded yet.
"""

from configs.glide_shapes import NETWORK, TEXT
from jaxgen.config import defaults, section

SMALL = dict(channels=16, channel_multipliers=(1, 2, 3), attention_levels=(2,), vector_dim=TEXT["width"] + 32)


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(**{**NETWORK, **SMALL}),
        parts=section(
            low=section(name="image", noise=0.5, noise_features=32),
            text=section(name="text", network=section(**TEXT), pooled=True),
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="x0",
    )
    config.sampler = section(name="dpmpp_2m", steps=10, spacing="log_snr")
    config.data.update(source="caption_shapes:phrases", resolution=64, channels=3)
    config.data.corruptions.condition = section(name="low_resolution", factor=2)
    config.optimizer.update(learning_rate=1e-3, warmup_images=2_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=8,
        total_images=24_000,
        log_every_images=2_000,
        checkpoint_every_images=6_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(num=200, real=1000, batch_size=50, metrics=("attribute_accuracy", "psnr", "hint_error"))
    return config
