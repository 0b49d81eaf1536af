"""Text to image by diffusion of pixels: GLIDE's base model on captioned shapes at 32 pixels.

Paper: Nichol et al. 2022, "GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided Diffusion
    Models".
Command: python main.py --config=configs/glide_shapes.py --workdir=runs/glide_shapes
Hardware and time: two CPU cores, about 20 minutes of CPU, which is an estimate from shorter runs.
Expected: not recorded yet at full length, see docs/glide.md.
With a prompt: --mode=sample --prompt="a crimson disc in the upper left corner" --out=DIR.
"""

from jaxgen.config import defaults, section

NETWORK = dict(
    name="unet",
    out_channels=3,
    patch_size=2,
    channels=32,
    channel_multipliers=(1, 2, 3),
    blocks=1,
    attention_levels=(1, 2),
    heads=4,
    norm_groups=8,
    context_dim=64,  # every token of the text, beside the pixels of each attention
    context_attention="appended",
    vector_dim=64,  # the last token of the text, added to the embedding of time
)
TEXT = dict(
    name="text_tower", vocabulary=56, length=16, width=64, depth=2, heads=4, mlp_features=256, activation="gelu", end=1
)


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(**NETWORK),
        parts=section(text=section(name="text", network=section(**TEXT), pooled=True, dropout=0.2)),
        schedule=section(name="cosine", steps=1000),
        prediction_type="x0",  # see docs/palette.md: the finest level has few channels for the noise of 2 x 2 pixels
    )
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.guidance = section(name="classifier_free", scale=3.0)
    config.data.update(source="caption_shapes:phrases", resolution=32, channels=3)
    config.optimizer.update(learning_rate=1e-3, warmup_images=2_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=16,
        total_images=100_000,
        log_every_images=2_000,
        checkpoint_every_images=10_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(num=200, real=1000, batch_size=50, metrics=("attribute_accuracy",))
    return config
