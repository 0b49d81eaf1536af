"""Imagen's super-resolution on two cores: captioned shapes of 32x32 pixels from copies of 16x16 and the text.

Noise on the copies, whose level the network is told, makes them like what the base model draws (section 2.4). The
network is an Efficient U-Net (appendix B.1): more blocks where there are few pixels, skip connections scaled by
2**-0.5, and no self-attention.

Paper: Saharia et al. 2022, "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding".
Command: python main.py --config=configs/imagen_shapes_32.py --workdir=runs/imagen_shapes_32, after the command of
    configs/clip_shapes.py
Hardware and time: two CPU cores, about 10 minutes of CPU, which is an estimate from shorter runs.
Expected: it is judged in the chain, configs/imagen_shapes.py; not recorded yet at full length, see docs/imagen.md.
"""

from configs.imagen_shapes_base import TEXT
from jaxgen.config import defaults, section

EFFICIENT = dict(
    name="unet",
    out_channels=3,
    patch_size=2,
    channels=24,
    channel_multipliers=(1, 2),
    blocks=(1, 2),
    skip_scale=2**-0.5,
    attention_levels=(1,),
    only_cross_attention=True,  # the text is read, and pixels do not look at each other
    heads=4,
    norm_groups=8,
    context_dim=64,
    vector_dim=64 + 32,  # the pooled text, and the level of the noise
)


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(**EFFICIENT),
        parts=section(
            low=section(name="image", noise=0.5, noise_features=32),
            text=section(
                name="text", network=section(**TEXT), learns=False, pooled=True, normalise=True, dropout=0.1,
            ),
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="x0",
    )  # fmt: skip
    config.init_from.text = "runs/clip_shapes"
    config.sampler = section(name="dpmpp_2m", steps=10, spacing="log_snr")
    config.guidance = section(name="classifier_free", scale=1.5, threshold=0.995)
    config.data.update(source="caption_shapes:phrases", eval_split="unseen", resolution=32, channels=3)
    config.data.corruptions.condition = section(name="low_resolution", factor=2)
    config.optimizer.update(learning_rate=2e-3, warmup_images=2_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=16,
        total_images=48_000,
        log_every_images=2_000,
        checkpoint_every_images=8_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(num=200, real=1000, batch_size=50, metrics=("attribute_accuracy", "psnr", "hint_error"))
    return config
