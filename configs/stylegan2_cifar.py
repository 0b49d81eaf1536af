"""StyleGAN2-ADA on CIFAR-10 (32x32, through TFDS) by class, in the paper's shapes and settings.

Paper: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data".
Command: python main.py --config=configs/stylegan2_cifar.py --workdir=runs/stylegan2_cifar
Data: the data must be prepared first, see docs/data.md.
Hardware and time: meant for one or two accelerators; neither planned nor run.
Expected: it has not been measured. The paper reports an FID of 2.42 after 100 million images.
"""

from configs.stylegan2_shapes import get_config as shapes
from configs.stylegan2_shapes import lazy
from jaxgen.config import section


def get_config():
    config = shapes()
    config.method.generator = section(
        name="style2_generator", depth=2, channels=512, max_channels=512, conditioning="embedding"
    )
    config.method.discriminator = section(
        name="style2_discriminator",
        channels=512,
        max_channels=512,
        conditioning="projection",
        residual=False,
        group=32,
    )
    config.method.update(augment=section(name="adaptive_augment"), r1=0.01, path_length=0.0, mixing=0.0)
    config.data.update(source="tfds:cifar10", resolution=32, channels=3, num_classes=10, flip=True)
    config.optimizer.learning_rate = 2.5e-3
    config.optimizers = section(discriminator=lazy(16, 2.5e-3))
    config.train.update(
        batch_size=64,
        total_images=100_000_000,
        log_every_images=64_000,
        checkpoint_every_images=400_000,
        sample_every_images=4_000_000,
        ema_decay=0.5 ** (64 / 500_000),  # a half-life of 500,000 images
    )
    config.evaluate.update(num=50_000, real=50_000, batch_size=250, network="filters", metrics=("frechet",))
    return config
