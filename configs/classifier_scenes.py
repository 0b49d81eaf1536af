"""The classifier of textured shapes at 64 pixels, which predicts all six attributes of a scene.

python -m jaxgen.evaluation.export_classifier makes a feature network of it, for models of such scenes.

Command: python main.py --config=configs/classifier_scenes.py --workdir=runs/classifier_scenes
Hardware and time: one core of a CPU, 6 minutes.
Expected: accuracies of 0.966 (shape), 1.000 (colour, position, background), 0.989 (size) and 0.626 (texture).
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="classifier",
        network=section(name="classifier", num_classes=37, widths=(8, 16, 32, 48, 48), features=64, dropout=0.1),
        attributes=(("shape", 8), ("colour", 8), ("position", 9), ("size", 3), ("texture", 4), ("background", 5)),
        label_smoothing=0.05,
        noise=0.1,
    )
    config.data.update(source="shapes", resolution=64, channels=3, num_classes=8)
    config.optimizer.update(learning_rate=2e-3, warmup_images=2_000, decay="cosine", weight_decay=1e-2)
    config.train.update(
        batch_size=64,
        total_images=60_000,
        log_every_images=5_000,
        checkpoint_every_images=30_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(real=2_000, batch_size=50)
    return config
