"""unCLIP's prior on captioned shapes: the CLIP embedding of an image from a text, by diffusion.

Paper: Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents".
Command: after the command of configs/clip_shapes.py,
    python -m jaxgen.sampling.latents runs/clip_shapes shapes_embeddings.npz --splits=train,test,unseen
    python main.py --config=configs/unclip_prior_shapes.py --workdir=runs/unclip_prior_shapes
Data: the file that the first command writes; another place of it is --config.data.source=npz:PATH.
Hardware and time: two CPU cores; not recorded yet.
Expected: prior_over_text of at most 0.67 on held-out captions; not recorded yet, see docs/unclip.md.
"""

from jaxgen.config import defaults, section

WIDTH = 64  # of the embeddings of configs/clip_shapes.py
TEXT = dict(  # the text tower of configs/clip_shapes.py
    name="text_tower",
    vocabulary=56,
    length=16,
    width=64,
    depth=2,
    heads=4,
    mlp_features=256,
    end=1,
    projection=WIDTH,
)


def get_config():
    config = defaults()
    config.method = section(
        name="prior",
        network=section(
            name="prior_transformer",
            outputs=WIDTH,
            context_dim=TEXT["width"],
            vector_dim=WIDTH,
            length=TEXT["length"],
            width=96,
            depth=3,
            heads=4,
            vector_norm=True,
        ),
        codec=section(name="embedding", width=WIDTH, scale=WIDTH**0.5, unit=True),
        parts=section(text=section(name="text", network=section(**TEXT), learns=False, pooled=True, dropout=0.1)),
        schedule=section(name="cosine", steps=1000),
        prediction_type="x0",
        candidates=2,
    )
    config.init_from.text = "runs/clip_shapes#text"
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.data.update(source="npz:shapes_embeddings.npz", resolution=32, channels=3)
    config.optimizer.update(learning_rate=1e-3, warmup_images=10_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=64,
        total_images=300_000,
        log_every_images=10_000,
        checkpoint_every_images=50_000,
        sample_every_images=0,
        ema_decay=0.999,
    )
    config.evaluate.update(num=1000, real=1000, batch_size=250, metrics=("cosine_similarity",))
    return config
