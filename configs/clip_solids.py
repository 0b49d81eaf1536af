"""CLIP on solids in space at 32 pixels, which says how well a text-to-3D model's pictures fit their captions.

Paper: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision".
Command: python main.py --config=configs/clip_solids.py --workdir=runs/clip_solids
Hardware and time: one CPU core, 9 minutes.
Expected: recall@1 of 1.0 both ways, of 1,000 pictures in combinations that were never seen.
"""

from jaxgen.config import defaults, section

VOCABULARY, LENGTH = 19, 8  # three ids without a word, and the words of `solids`


def get_config():
    config = defaults()
    config.method = section(
        name="clip",
        image=section(
            name="image_tower", size=32, patch=4, width=96, depth=3, heads=4, mlp_features=384, projection=64,
        ),
        text=section(
            name="text_tower", vocabulary=VOCABULARY, length=LENGTH, width=64, depth=2, heads=4,
            mlp_features=256, end=1, projection=64,
        ),
        same="attributes",
    )  # fmt: skip
    config.data.update(source="solids", eval_split="unseen", resolution=32, channels=3)
    config.optimizer.update(name="adamw", learning_rate=1.5e-3, weight_decay=1e-2, b2=0.98)
    config.optimizer.update(warmup_images=10_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=128,
        total_images=100_000,
        log_every_images=5_000,
        checkpoint_every_images=10_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(num=1000, real=1000, batch_size=250)
    return config
