"""The classifier of digits: a small network for p(y | x), whose weights come with the package.

Command: python main.py --config=configs/classifier_digits.py --workdir=runs/classifier_digits, then
    python -m jaxgen.evaluation.export_classifier runs/classifier_digits to put its weights into the package.
Hardware and time: two CPU cores, half a minute.
Expected: an accuracy of 0.990 on the 500 held-out digits.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="classifier",
        network=section(name="classifier", widths=(12, 16, 16), features=32, dropout=0.2),
        label_smoothing=0.05,
        noise=0.1,
    )
    config.data.update(source="digits", resolution=8, channels=1, num_classes=10, crop=1)
    config.optimizer.update(learning_rate=3e-3, decay="cosine", weight_decay=1e-2)
    config.train.update(
        batch_size=64,
        total_images=200_000,
        log_every_images=5_000,
        checkpoint_every_images=50_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    return config
