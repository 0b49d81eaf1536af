"""ProGAN on shapes (32x32), one coloured shape on black: four stages, from 4x4 pixels on; or without growing.

Paper: Karras et al. 2018, "Progressive Growing of GANs for Improved Quality, Stability, and Variation".
Command: python main.py --config=configs/progan_shapes.py --workdir=runs/progan_shapes
    The control, whose networks have all their levels from the first step on, for as much time of the CPU:
    python main.py --config=configs/progan_shapes.py:from_start --workdir=runs/progan_from_start
    Both are compared in docs/progan.md.
Hardware and time: two CPU cores, 30 minutes of CPU each, which is an estimate.
Expected: not recorded yet.
"""

from jaxgen.config import defaults, section
from jaxgen.errors import UserError

WIDTHS = (64, 64, 32, 16)  # at 4, 8, 16 and 32 pixels
# {plan: (config.method.coarsest, config.train.total_images)}; the control sees fewer images in as much time, since
# steps at 4, 8, 16 and 32 pixels cost about 1, 7, 16 and 25 parts by their multiplications
PLANS = {"grow": (4, 200_000), "from_start": (32, 120_000)}


def get_config(plan="grow"):
    """Returns the config of a plan: "grow", or its control "from_start"."""
    if plan not in PLANS:
        raise UserError(f"the plan {plan!r} is none of {', '.join(PLANS)}")
    coarsest, images = PLANS[plan]
    config = defaults()
    config.method = section(
        name="progan",
        generator=section(name="progressive_generator", z_dim=64, widths=WIDTHS),
        discriminator=section(name="progressive_discriminator", widths=WIDTHS),
        coarsest=coarsest,
        images_per_stage=(24_000, 24_000),
    )
    config.data.update(source="caption_shapes", resolution=32, channels=3)
    config.optimizer.update(name="adam", learning_rate=1e-3, b1=0.0, b2=0.99)
    config.train.update(
        batch_size=32,
        total_images=images,
        log_every_images=2_000,
        checkpoint_every_images=24_000,
        sample_every_images=24_000,
        ema_decay=0.999,
    )
    config.evaluate.update(
        num=1000, real=2000, batch_size=50, network="filters", metrics=("frechet", "kid", "precision", "recall")
    )
    return config
