"""SinGAN of one picture, at 8 scales from 25 pixels on.

Paper: Rott Shaham et al. 2019, "SinGAN: Learning a Generative Model from a Single Natural Image".
Command: python main.py --config=configs/singan_image.py --workdir=runs/singan_cat --config.data.source=image:cat.png
    --config.data.resolution="(75,128)"
    The picture is yours; resolution is its height and width, in the picture's own ratio. docs/singan.md has the uses.
    For 256 pixels: --config.data.resolution="(150,256)" --config.method.scales=10
    --config.train.total_images=12000; the paper's steps: --config.method.discriminator_steps=3
    --config.method.generator_steps=3.
Hardware and time: two CPU cores; not recorded yet.
Expected: not recorded yet.
"""

from jaxgen.config import defaults, section

SCALES, STEPS = 8, 1200


def get_config():
    config = defaults()
    config.method = section(
        name="singan",
        generator=section(name="singan_generator"),
        discriminator=section(name="singan_discriminator"),
        scales=SCALES,
        images_per_scale=STEPS,
        discriminator_steps=1,
        generator_steps=1,
    )
    config.data.update(source="image:picture.png", resolution=128, channels=3)
    config.optimizer.update(name="adam", learning_rate=5e-4, b1=0.5, b2=0.999)
    config.train.update(
        batch_size=1,
        total_images=SCALES * STEPS,
        log_every_images=200,
        checkpoint_every_images=STEPS,
        sample_every_images=0,
        ema_decay=0.0,
    )
    config.evaluate.update(num=16, real=2, batch_size=8, network="filters", metrics=("single_image_frechet",))
    return config
