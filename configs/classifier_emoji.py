"""The classifier of emoji at 64 pixels, which tells their groups: smileys, people, animals, food and others.

python -m jaxgen.evaluation.export_classifier makes a feature network of it, for models of emoji.

Command: python main.py --config=configs/classifier_emoji.py --workdir=runs/classifier_emoji
Data: emoji.npz with train_labels and test_labels, the numbers of the groups, as docs/palette.md makes it.
Hardware and time: one core of a CPU, 6 minutes.
Expected: an accuracy of 0.656 on 192 held-out emoji of families of their own.
"""

from jaxgen.config import defaults, section

GROUPS = 10


def get_config():
    config = defaults()
    config.method = section(
        name="classifier",
        network=section(
            name="classifier", num_classes=GROUPS, widths=(8, 16, 32, 48, 48), features=64, dropout=0.3
        ),
        label_smoothing=0.1,
        noise=0.1,
    )  # fmt: skip
    config.data.update(source="npz:emoji.npz", resolution=64, channels=3, num_classes=GROUPS, flip=True, crop=4)
    config.optimizer.update(learning_rate=2e-3, warmup_images=2_000, decay="cosine", weight_decay=1e-2)
    config.train.update(
        batch_size=64,
        total_images=64_000,
        log_every_images=4_000,
        checkpoint_every_images=32_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(num=160, real=160, batch_size=40)
    return config
