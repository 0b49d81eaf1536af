"""Imagen's base model: captioned shapes of 16x16 pixels from a text, whose encoder is frozen.

The text encoder is the text tower of a trained CLIP. The control, one that learns with the model:
    --config.method.parts.text.learns=True --config.init_from.text=""
With a T5 in its place, such as google/t5-v1_1-small (other sizes: docs/imagen.md):
    --config.init_from.text=t5_encoder:FOLDER --config.data.tokenizer=FOLDER --config.data.token_length=32
    --config.method.parts.text.network="{'name':'t5_encoder','length':32}" --config.method.network.context_dim=512
    --config.method.network.vector_dim=512

Paper: Saharia et al. 2022, "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding".
Command: python main.py --config=configs/imagen_shapes_base.py --workdir=runs/imagen_shapes_base, after the command of
    configs/clip_shapes.py
Hardware and time: two CPU cores, about 15 minutes of CPU, which is an estimate from shorter runs.
Expected: not recorded yet at full length. After 12,000 images (150 seconds of CPU) colour and place are right in 0.62
    each of the images of held-out combinations, and shapes at chance (docs/imagen.md).
"""

from jaxgen.config import defaults, section

TEXT = dict(  # the text tower of configs/clip_shapes.py
    name="text_tower", vocabulary=56, length=16, width=64, depth=2, heads=4, mlp_features=256, end=1, projection=64
)
NETWORK = dict(
    name="unet",
    out_channels=3,
    channels=32,
    channel_multipliers=(1, 2),
    blocks=1,
    attention_levels=(1,),
    heads=4,
    norm_groups=8,
    context_dim=64,  # every token of the text, beside the pixels of each attention (appendix B.1)
    context_attention="appended",
    vector_dim=64,  # the pooled text, added to the embedding of time (section 2.2)
)


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(**NETWORK),
        parts=section(
            text=section(
                name="text", network=section(**TEXT), learns=False, pooled=True, normalise=True, dropout=0.1,
            ),
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
    )  # fmt: skip
    config.init_from.text = "runs/clip_shapes"
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.guidance = section(name="classifier_free", scale=3.0, threshold=0.995)
    config.data.update(source="caption_shapes:phrases", eval_split="unseen", resolution=16, channels=3)
    config.optimizer.update(learning_rate=2e-3, warmup_images=2_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=32,
        total_images=80_000,
        log_every_images=4_000,
        checkpoint_every_images=20_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(num=200, real=1000, batch_size=50, metrics=("attribute_accuracy", "saturated_share"))
    return config
