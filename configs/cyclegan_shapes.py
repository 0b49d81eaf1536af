"""CycleGAN on shapes at 16 pixels: coloured scenes and chalk drawings, of which no pair is seen.

Each scene has a true drawing, which held-out data show as `style` and training never reads. Controls:
--config.method.pool=0, and --config.method.identity=0.

Paper: Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks".
Command: python main.py --config=configs/cyclegan_shapes.py --workdir=runs/cyclegan_shapes
Hardware and time: two CPU cores, about 10 minutes of CPU, which is an estimate.
Expected: not recorded yet.
"""

from jaxgen.config import defaults, section

IMAGES = 40_000


def get_config():
    config = defaults()
    config.method = section(
        name="cyclegan",
        generator=section(name="translation_resnet", width=16, downs=1, blocks=2),
        discriminator=section(name="patch_discriminator", width=16, layers=1, norm="instance"),
        truth="style",
    )
    config.data.update(source="shapes", split="train", eval_split="test", resolution=16, channels=3)
    config.data.extra.other = section(source="shapes", split="val", eval_split="test")
    config.data.extra.other.rename = section(image="style")
    config.optimizer.update(name="adam", learning_rate=1e-3, b1=0.5, b2=0.999)
    config.optimizer.update(constant_images=IMAGES // 2, decay="linear")
    config.train.update(
        batch_size=8,
        total_images=IMAGES,
        log_every_images=2_000,
        checkpoint_every_images=8_000,
        sample_every_images=16_000,
        ema_decay=0.995,
    )
    config.evaluate.update(num=200, real=500, batch_size=50, metrics=())
    return config
