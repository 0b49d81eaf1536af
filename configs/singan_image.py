"""SinGAN of one picture of yours, at 8 scales from 25 pixels on.

Paper: Rott Shaham et al. 2019, "SinGAN: Learning a Generative Model from a Single Natural Image".
Command: python main.py --config=configs/singan_image.py --workdir=runs/singan_cat --config.data.source=image:cat.png
    --config.data.resolution="(0,128)"
    The side of 0 follows from the picture's own ratio. --config=configs/singan_image.py:10x2000 has 10 scales of 2000
    steps, as the paper has at 250 pixels. docs/singan.md has the seven uses, and numbers.
Hardware and time: two CPU cores; 5 minutes for the plan 6x400 at 64x96 pixels on a machine that others used too. The
    default plan is not recorded yet.
Expected: of 6x400 at 64x96, reconstruction errors of 0.052 at the coarsest scale and 0.041 to 0.047 above, and a
    single-image Fréchet distance of 0.0086, where shuffled blocks have 0.0415 (docs/singan.md).
"""

from jaxgen.config import defaults, section
from jaxgen.errors import UserError


def get_config(plan="8x1200"):
    """Returns the config of a plan, `<scales>x<steps at each scale>`."""
    scales, _, steps = plan.partition("x")
    if not (scales.isdecimal() and steps.isdecimal()):
        raise UserError(f"the plan {plan!r} is no <scales>x<steps of each>, such as 8x1200")
    scales, steps = int(scales), int(steps)
    config = defaults()
    config.method = section(
        name="singan",
        generator=section(name="singan_generator"),
        discriminator=section(name="singan_discriminator"),
        scales=scales,
        images_per_scale=steps,
        discriminator_steps=1,  # the paper has 3, of 2000 steps; more steps of one each are compiled in half the time
        generator_steps=1,
        double_every=99,  # 32 channels at all scales; the paper's 4 doubles them, for three times the time
    )
    config.data.update(source="image:picture.png", resolution=128, channels=3)
    config.optimizer.update(name="adam", learning_rate=5e-4, b1=0.5, b2=0.999, decay="cosine")
    config.optimizer.restart_images = steps  # the rate falls to 0 within each scale
    config.train.update(
        batch_size=1,
        total_images=scales * steps,
        log_every_images=200,
        checkpoint_every_images=steps,
        sample_every_images=0,
        ema_decay=0.0,
    )
    config.evaluate.update(num=16, real=2, batch_size=8, network="filters", metrics=("single_image_frechet",))
    return config
