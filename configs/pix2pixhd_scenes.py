"""pix2pixHD on scenes at 64 pixels: a map of classes becomes a textured scene, by a coarse-to-fine generator.

Two discriminators, of the image and of its half, and the distance of their layers between fake and real images (feature
matching) in place of L1. Noise at each pixel and mode seeking give several scenes for one map. Controls:
--config.method.discriminator.scales=1, --config.method.feature_matching=0 and --config.method.mode_seeking=0.

Paper: Wang et al. 2018, "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs".
Command: python main.py --config=configs/pix2pixhd_scenes.py --workdir=runs/pix2pixhd_scenes
Hardware and time: two CPU cores, about 30 minutes of CPU, which is an estimate.
Expected: not recorded yet.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    read = {"reads": ("mask",), "classes": 9}  # the ground, and eight shapes
    config.method = section(
        name="pix2pix",
        generator=section(name="coarse_to_fine", width=8, downs=2, blocks=3, local_blocks=2, z_dim=8, **read),
        discriminator=section(
            name="multi_scale",
            scales=2,
            network=section(name="patch_discriminator", width=16, layers=2, norm="instance", padding=2, **read),
        ),
        loss="least_squares",
        l1=0.0,
        feature_matching=10.0,
        mode_seeking=1.0,
    )
    config.data.update(source="scenes", split="train", eval_split="test", resolution=64, channels=3)
    config.optimizer.update(name="adam", learning_rate=5e-4, b1=0.5, b2=0.999)
    config.train.update(
        batch_size=4,
        total_images=20_000,
        log_every_images=2_000,
        checkpoint_every_images=4_000,
        sample_every_images=8_000,
        ema_decay=0.995,
    )
    config.evaluate.update(
        num=200, real=1000, batch_size=50, metrics=("l1", section(name="conditional_diversity", num=50, draws=4))
    )
    return config
