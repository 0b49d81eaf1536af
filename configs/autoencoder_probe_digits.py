"""A classifier of digits on the latents of an autoencoder that saw no label.

Command: python main.py --config=configs/autoencoder_digits.py --workdir=runs/autoencoder_digits, then
    python main.py --config=configs/autoencoder_probe_digits.py --workdir=runs/autoencoder_probe_digits
    With --config.method.tune=True the encoder learns too; --config.method.contrastive=1.0 adds a loss that learns a
    metric.
Hardware and time: two CPU cores, 10 seconds of CPU.
Expected: an accuracy of 0.976 on the 500 held-out digits with all 1,297 labels. With 10 labels a class it is 0.948,
    while the same layers on raw pixels reach 0.910 (docs/results.md).
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="probe",
        encoder=section(name="encoder", widths=(32, 64), hidden=(128,)),
        z_dim=32,
        head=section(name="head", hidden=(128,), embedding=32, dropout=0.2),
    )
    config.init_from.encoder = "runs/autoencoder_digits"
    config.data.update(source="digits", resolution=8, channels=1, num_classes=10)
    config.optimizer.update(learning_rate=2e-3, decay="cosine", weight_decay=1e-2)
    config.train.update(
        batch_size=100,
        total_images=40_000,
        log_every_images=4_000,
        checkpoint_every_images=20_000,
        sample_every_images=0,
        ema_decay=0.99,
    )
    return config
