"""CLIP with a captioner on captioned shapes at 32 pixels: images and texts in one space, and captions.

Papers: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision"; Yu et al. 2022,
    "CoCa: Contrastive Captioners are Image-Text Foundation Models".
Command: python main.py --config=configs/clip_shapes.py --workdir=runs/clip_shapes
Hardware and time: two CPU cores, 3.6 minutes (4.1 minutes of CPU).
Expected: zero-shot accuracy of shape, colour and place 0.983, 1.000 and 1.000 in 1,000 scenes of unseen combinations
    (the bar: 0.9 each); all their captions name all three, in sentences of the data (docs/clip.md).
"""

from jaxgen.config import defaults, section

VOCABULARY, LENGTH = 56, 16  # of the tokenizer of caption_shapes:phrases
WORDS = {  # the plain phrase of each value
    "shape": ("circle", "square", "triangle", "diamond", "cross", "star", "heart", "ring"),
    "colour": ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"),
    "position": (
        "at the top left", "at the top", "at the top right", "at the left", "at the centre", "at the right",
        "at the bottom left", "at the bottom", "at the bottom right",
    ),
}  # fmt: skip


def get_config():
    config = defaults()
    config.method = section(
        name="clip",
        image=section(
            name="image_tower", size=32, patch=8, width=96, depth=4, heads=4, mlp_features=384, projection=64,
        ),
        text=section(
            name="text_tower", vocabulary=VOCABULARY, length=LENGTH, width=64, depth=2, heads=4,
            mlp_features=256, end=1, projection=64,
        ),
        captioner=section(
            name="captioner", vocabulary=VOCABULARY, width=64, depth=2, heads=4, mlp_features=256,
        ),
        zero_shot=section(shape=prompts("shape", 0), colour=prompts("colour", 1), position=prompts("position", 2)),
        same="attributes",
    )  # fmt: skip
    config.data.update(source="caption_shapes:phrases", resolution=32, channels=3)
    config.data.eval_split = "unseen"
    config.optimizer.update(name="adamw", learning_rate=1.5e-3, weight_decay=1e-2, b2=0.98)
    config.optimizer.update(warmup_images=10_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=128,
        total_images=80_000,
        log_every_images=5_000,
        checkpoint_every_images=10_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(num=1000, real=1000, batch_size=250, metrics=("caption_accuracy",))
    return config


def prompts(attribute, column):
    """Returns the classes of an attribute, and sentences that say them with each value of the others."""
    first, second = (values for key, values in WORDS.items() if key != attribute)
    templates = []
    for one in first:
        for other in second:
            shape, colour, place = {
                "shape": ("{}", one, other), "colour": (one, "{}", other), "position": (one, other, "{}"),
            }[attribute]  # fmt: skip
            templates.append(f"{'an' if colour == 'orange' else 'a'} {colour} {shape} {place}")
    return section(classes=WORDS[attribute], templates=tuple(templates), entry="attributes", column=column)
