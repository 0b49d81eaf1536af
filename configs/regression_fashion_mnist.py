"""The control of sr3_fashion_mnist: 28x28 pixels from copies of 7x7, by one pass of the same network.

It minimises the squared error, so that its PSNR is higher than that of SR3 and its images are blurred.

Paper: Saharia et al. 2021, "Image Super-Resolution via Iterative Refinement".
Command: python main.py --config=configs/regression_fashion_mnist.py --workdir=runs/regression_fashion_mnist
Hardware and time: two CPU cores, about 10 minutes of CPU.
Data: the data must be prepared first, see docs/data.md.
Expected: a PSNR of 21.6 dB, a hint error of 0.015, a label accuracy of 0.84 and a Fréchet distance of 2.53.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="regression",
        network=section(  # that of configs/sr3_fashion_mnist.py
            name="unet",
            out_channels=1,
            channels=16,
            channel_multipliers=(1, 2, 4),
            blocks=1,
            attention_resolutions=(7,),
            norm_groups=8,
            num_classes=0,  # the classes are not told; they are for the metrics
        ),
        parts=section(low=section(name="image")),
    )
    config.data.update(source="tfds:fashion_mnist", resolution=28, channels=1, num_classes=10)
    config.data.corruptions.condition = section(name="low_resolution", factor=4)
    config.optimizer.update(learning_rate=2e-3, warmup_images=2_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=16,
        total_images=24_000,
        log_every_images=2_000,
        checkpoint_every_images=8_000,
        sample_every_images=24_000,
        ema_decay=0.995,
    )
    config.evaluate.update(
        num=500,
        batch_size=100,
        network="fashion",
        metrics=("psnr", "ssim", "hint_error", "label_accuracy", "frechet", "kid", "precision", "recall"),
    )
    return config
