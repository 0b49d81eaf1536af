"""SR3: Fashion-MNIST (28x28, through TFDS) from copies of 7x7 pixels, by diffusion that embeds its noise level.

Paper: Saharia et al. 2021, "Image Super-Resolution via Iterative Refinement".
Command: python main.py --config=configs/sr3_fashion_mnist.py --workdir=runs/sr3_fashion_mnist
Hardware and time: two CPU cores, about 10 minutes of CPU.
Data: the data must be prepared first, see docs/data.md.
Expected: a PSNR of 18.6 dB (the control: 21.6), a hint error of 0.023, a label accuracy of 0.83 (true images: 0.92)
    and a Fréchet distance of 1.50 (the control: 2.53, true images: 0.61).
Its control is configs/regression_fashion_mnist.py. A picture of your own: --mode=sample --image=small.png, and with
--degrade a large one, which is made small first.
"""

from jaxgen.config import defaults, section


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
            num_classes=0,  # the classes are not told; they are for the metrics
        ),
        parts=section(low=section(name="image")),
        embed="noise_level",
        timesteps="between_levels",
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
    )
    config.sampler = section(name="ddpm", steps=50)
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
