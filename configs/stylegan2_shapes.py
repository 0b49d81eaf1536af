"""StyleGAN2 on shapes (32x32), one coloured shape on black, small enough for two CPU cores.

Paper: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN".
Command: python main.py --config=configs/stylegan2_shapes.py --workdir=runs/stylegan2_shapes
    Typical images: python main.py --config=configs/stylegan2_shapes.py --workdir=runs/stylegan2_shapes --mode=sample
    --config.sampler.truncation=0.7 --out=DIR
    With augmentation that follows the overfitting, of 1,000 images: --config.data.examples=1000
    --config.method.augment.name=adaptive_augment
Hardware and time: two CPU cores that were shared, 59 minutes; at 120,000 images, after 23 minutes, 0.015.
Expected: Fréchet distance 0.0064 in the features without weights, real images 0.0005. With r1=0.1 most are red.
"""

from jaxgen.config import defaults, section


def lazy(every, learning_rate, b1=0.0, b2=0.99):
    """Returns Adam's settings of a group with a penalty every so many steps: n + 1 updates count as n (appendix B)."""
    share = every / (every + 1)
    return section(learning_rate=learning_rate * share, b1=b1**share, b2=b2**share)


def get_config():
    config = defaults()
    config.method = section(
        name="stylegan2",
        generator=section(name="style2_generator", z_dim=64, w_dim=64, depth=4, channels=16, max_channels=64),
        discriminator=section(name="style2_discriminator", channels=16, max_channels=64),
        r1=1.0,  # with 0.1 the colours are lost
        r1_every=16,
        path_length=2.0,
        path_every=4,
        mixing=0.9,
    )
    config.data.update(source="caption_shapes", resolution=32, channels=3)
    config.optimizer.update(name="adam", learning_rate=2e-3, b1=0.0, b2=0.99)
    config.optimizers.generator = lazy(4, 2e-3)
    config.optimizers.discriminator = lazy(16, 2e-3)
    config.train.update(
        batch_size=32,
        total_images=300_000,
        log_every_images=3_200,
        checkpoint_every_images=24_000,
        sample_every_images=24_000,
        ema_decay=0.5 ** (32 / 3_000),  # a half-life of 3,000 images
    )
    config.evaluate.update(num=500, real=2000, batch_size=50, network="filters", metrics=("frechet",))
    return config
