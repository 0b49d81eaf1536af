"""Class-conditional DDPM on Fashion-MNIST (28x28, through TFDS), for classifier-free guidance.

Paper: Ho & Salimans 2022, "Classifier-Free Diffusion Guidance".
Command: python main.py --config=configs/ddpm_fashion_mnist_classes.py --workdir=runs/ddpm_fashion_mnist_classes
Hardware and time: two CPU cores, about 20 minutes.
Data: the data must be prepared first, see docs/data.md.
Expected: unknown, since it has not been run to its end yet.
"""

from jaxgen.config import SAMPLE_METRICS, defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(
            name="unet",
            out_channels=1,
            channels=16,
            channel_multipliers=(1, 2, 4),
            blocks=1,
            attention_resolutions=(7,),
            norm_groups=8,
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
        label_dropout=0.1,
    )
    config.sampler = section(name="dpmpp_2m", steps=20, spacing="log_snr")
    config.guidance = section(name="classifier_free", scale=1.5)
    config.data.update(source="tfds:fashion_mnist", resolution=28, channels=1, num_classes=10)
    config.optimizer.update(learning_rate=1e-3, warmup_images=10_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=32,
        total_images=96_000,
        log_every_images=5_000,
        checkpoint_every_images=16_000,
        sample_every_images=16_000,
        ema_decay=0.999,
    )
    config.evaluate.update(
        num=500, batch_size=100, network="fashion", metrics=(*SAMPLE_METRICS, "label_accuracy", "memorisation")
    )
    return config
