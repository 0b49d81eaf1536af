"""SPADE with a style encoder: pictures of layouts of plain regions at 32 pixels, many for each layout.

The class of a region is its hue; brightness, saturation and pattern are the style, which the layout does not tell.

Paper: Park et al. 2019, "Semantic Image Synthesis with Spatially-Adaptive Normalization".
Command: python main.py --config=configs/spade_regions.py --workdir=runs/spade_regions
    Told and not told the layout where each image is normalised alone (docs/spade.md):
    --config.method.generator.statistics=instance, and that with --config.method.generator.name=encoded_layout_generator
    A layout of your own, painted in the colours of a legend (docs/spade.md):
    python main.py --workdir=runs/spade_regions --mode=sample --mask=map.png --legend=legend.txt --out=DIR
Hardware and time: two CPU cores, 20 minutes of CPU, which is an estimate.
Expected: not run to its end. With statistics=instance and the paper's kl=0.05, 4,000 images (79 s of CPU) gave a layout
    IoU of 0.92 and 0.997 of the pixels of layouts with one class; the control 0.55 and 0.15 (chance 0.17).
"""

from jaxgen.config import defaults, section

CLASSES = 6


def get_config():
    config = defaults()
    config.method = section(
        name="spade",
        generator=section(
            name="spade_generator",
            classes=CLASSES,
            z_dim=8,
            widths=(64, 64, 32, 16),
            middle=0,
            hidden=32,
            statistics="batch",  # those of each image take its brightness away, which is a part of the style
        ),
        discriminator=section(
            name="multi_scale",
            network=section(
                # normalised activations would hide whether a layout of one class has the right colour
                name="patch_discriminator",
                width=32,
                layers=2,
                norm="spectral",
                reads=("mask",),
                classes=CLASSES,
            ),
            scales=2,
        ),
        encoder=section(name="style_encoder", widths=(16, 32, 32), norm="none"),  # for the same reason
        kl=0.01,  # with the paper's 0.05 and statistics of each image, the KL fell to 0.005 nats: no style was told
    )
    config.data.update(source=f"regions:{CLASSES}", resolution=32, channels=3)
    config.optimizer.update(name="adam", learning_rate=5e-4, b1=0.0, b2=0.9)
    config.optimizers.discriminator = section(learning_rate=1e-3)
    config.train.update(
        batch_size=16,
        total_images=60_000,
        log_every_images=1_000,
        checkpoint_every_images=10_000,
        sample_every_images=20_000,
        ema_decay=0.999,
    )
    config.evaluate.update(num=500, real=500, batch_size=50, metrics=("layout_iou", "conditional_diversity"))
    return config
