"""The classifier of Fashion-MNIST: a small network for p(y | x), whose weights come with the package.

Data: the data must be prepared first, see docs/data.md.
Command: python main.py --config=configs/classifier_fashion_mnist.py --workdir=runs/classifier_fashion_mnist, then
    python -m jaxgen.evaluation.export_classifier runs/classifier_fashion_mnist fashion,
    which puts its weights into the package.
Hardware and time: two CPU cores, 7 minutes.
Expected: an accuracy of 0.916 on the 10,000 test images.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="classifier",
        network=section(name="classifier", widths=(16, 32, 48, 48), features=64, dropout=0.2),
        label_smoothing=0.05,
        noise=0.05,
    )
    config.data.update(source="tfds:fashion_mnist", resolution=28, channels=1, num_classes=10, crop=1, flip=True)
    config.optimizer.update(learning_rate=2e-3, decay="cosine", weight_decay=1e-2)
    config.train.update(
        batch_size=128,
        total_images=600_000,
        log_every_images=20_000,
        checkpoint_every_images=100_000,
        sample_every_images=0,
        ema_decay=0.999,
    )
    return config
