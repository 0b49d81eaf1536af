"""unCLIP's decoder on captioned shapes at 32 pixels: an image from its CLIP embedding, and from a text.

It is the network of configs/glide_shapes.py. The embedding is added to the embedding of time, and stands as four more
tokens behind those of the text. In training a tenth of the embeddings and half of the texts are missing.

Paper: Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents", section 2.1.
Command: after the first command of configs/unclip_prior_shapes.py,
    python main.py --config=configs/unclip_decoder_shapes.py --workdir=runs/unclip_decoder_shapes
Data: as in configs/unclip_prior_shapes.py.
Hardware and time: two CPU cores, about 20 minutes of CPU, which is an estimate from shorter runs.
Expected: not recorded yet at full length, see docs/unclip.md.
"""

from configs.glide_shapes import NETWORK, TEXT
from configs.unclip_prior_shapes import WIDTH
from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(**{**NETWORK, "vector_dim": TEXT["width"] + WIDTH}),
        parts=section(
            text=section(name="text", network=section(**TEXT), pooled=True, dropout=0.5),
            embedding=section(name="embedding", size=WIDTH, tokens=4, width=NETWORK["context_dim"], dropout=0.1),
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="x0",
    )
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.guidance = section(name="classifier_free", scale=2.0)
    config.data.update(source="npz:shapes_embeddings.npz", resolution=32, channels=3)
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
