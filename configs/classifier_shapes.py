"""The classifier of captioned shapes at 64 pixels, which predicts the shape, its colour and its place.

Command: python main.py --config=configs/classifier_shapes.py --workdir=runs/classifier_shapes; then
    python -m studies.caption_accuracy --workdir=runs/latent_diffusion_shapes --classifier=runs/classifier_shapes
Hardware and time: two CPU cores, 70 seconds.
Expected: all three attributes are right in 1,000 of 1,000 held-out scenes and in 500 of 500 with unseen combinations.
It is trained only on the combinations of the split `train`; `--config.data.eval_split=unseen` tests it on the others.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="classifier",
        network=section(name="classifier", num_classes=25, widths=(8, 16, 32, 48, 48), features=64, dropout=0.1),
        attributes=(("shape", 8), ("colour", 8), ("position", 9)),
        label_smoothing=0.05,
        noise=0.1,
    )
    config.data.update(source="caption_shapes", resolution=64, channels=3, num_classes=8)
    config.optimizer.update(learning_rate=2e-3, warmup_images=2_000, decay="cosine", weight_decay=1e-2)
    config.train.update(
        batch_size=64,
        total_images=60_000,
        log_every_images=5_000,
        checkpoint_every_images=30_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(batch_size=50)
    return config
