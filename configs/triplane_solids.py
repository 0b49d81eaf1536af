"""A triplane GAN with word attention: solids in space from sentences, learned from single pictures at 32 pixels.

Paper: Wu et al. 2024, "TPA3D: Triplane Attention for Fast Text-to-3D Generation", of which no code is published; and
    Chan et al. 2022, "Efficient Geometry-aware 3D Generative Adversarial Networks" (EG3D).
Command: python main.py --config=configs/triplane_solids.py --workdir=runs/triplane_solids
    The controls, each without one thing: --config.method.generator.cross_word=False (the sentence alone is told),
    --config.method.generator.cross_plane=False; without captions --config=configs/triplane_solids.py:unconditional;
    without objects in space --config=configs/triplane_solids.py:flat, whose generator is told the camera.
    With the frozen text encoder of a CLIP: --config=configs/triplane_solids.py:clip, after configs/clip_solids.py
    python main.py --workdir=runs/triplane_solids --mode=sample --prompt="a red cube on a blue sphere" --num=8 --out=DIR
Hardware and time: one CPU core, 34 minutes.
Expected: a depth correlation of 0.96 on held-out captions; studies.triplane finds the captions of all single solids and
    of all pairs among 99 others, in combinations that were never seen (docs/triplane_gan.md).
"""

from jaxgen.config import defaults, section
from jaxgen.errors import UserError

VOCABULARY = 19  # three ids without a word, and the words of `solids`
KINDS = ("text", "clip", "unconditional", "flat")
TEXT = dict(  # the text tower of configs/clip_solids.py
    name="text_tower", vocabulary=VOCABULARY, length=8, width=64, depth=2, heads=4, mlp_features=256, end=1,
    projection=64,
)  # fmt: skip


def get_config(kind="text"):
    if kind not in KINDS:
        raise UserError(f"the kind {kind!r} is none of {', '.join(KINDS)}")
    config = defaults()
    words = 0 if kind == "unconditional" else VOCABULARY
    config.method = section(
        name="triplane_gan",
        generator=section(
            name="triplane_generator",
            vocabulary=words,
            cross_plane=True,
            cross_word=True,
        ),
        discriminator=section(name="camera_discriminator", vocabulary=words),
        loss="non_saturating",
        r1=1.0,
        r1_every=8,
    )
    if kind == "clip":
        config.method.text = section(**TEXT)
        config.method.generator.frozen_text = config.method.discriminator.frozen_text = True
        config.init_from.text = "runs/clip_solids"
    if kind == "flat":
        config.method.name = "camera_gan"
        config.method.generator = section(name="camera_generator", vocabulary=words)
    config.data.update(source="solids", eval_split="test", resolution=32, channels=3)
    config.optimizer.update(name="adam", learning_rate=1e-3, b1=0.0, b2=0.99)
    config.train.update(
        batch_size=16,
        total_images=60_000,
        log_every_images=1_000,
        checkpoint_every_images=10_000,
        sample_every_images=20_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=500, real=500, batch_size=50)
    return config
