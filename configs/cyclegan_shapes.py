"""CycleGAN on shapes at 16 pixels: coloured scenes and chalk drawings, of which no pair is seen.

Each scene has a true drawing, which held-out data show as `style` and training never reads. Nothing is normalised:
InstanceNorm, which the paper has, does not see which colour a flat ground has. Controls:
--config.method.generator.norm=instance --config.method.discriminator.norm=instance (with the rate 1e-3),
--config.method.pool=0, and --config.method.identity=0.

Paper: Zhu et al. 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks".
Command: python main.py --config=configs/cyclegan_shapes.py --workdir=runs/cyclegan_shapes
Hardware and time: two CPU cores, 18 minutes while others used them too.
Expected: of 500 held-out scenes, an error after both translations of .060 (scenes) and .057 (drawings) in [-1, 1]; of
    the pixels that must change, .34 are right in scenes and .60 in drawings. Grounds and places are right, but white
    and grey have changed places, and so have some colours of the shapes. With InstanceNorm .11 and .24.
"""

from jaxgen.config import defaults, section

IMAGES = 40_000


def get_config():
    config = defaults()
    config.method = section(
        name="cyclegan",
        generator=section(name="translation_resnet", width=16, downs=1, blocks=2, norm="none"),
        discriminator=section(name="patch_discriminator", width=16, layers=1, norm="none"),
        truth="style",
    )
    config.data.update(source="shapes", split="train", eval_split="test", resolution=16, channels=3)
    config.data.extra.other = section(source="shapes", split="val", eval_split="test")
    config.data.extra.other.rename = section(image="style")
    config.optimizer.update(name="adam", learning_rate=5e-4, b1=0.5, b2=0.999)
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
