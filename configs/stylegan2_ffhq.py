"""StyleGAN2 on faces at 1024 pixels in the paper's shapes and settings.

Paper: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN" (configuration F).
Command: python main.py --config=configs/stylegan2_ffhq.py --workdir=runs/stylegan2_ffhq
    --config.data.source=folder:FFHQ
    FFHQ holds train/ and val/. Before a run: --mode=plan --topology=v5e:2x4 (pip install -e ".[tpu]").
Hardware and time: meant for eight accelerators; neither planned nor run.
Expected: it has not been measured. The paper reports an FID of 2.84 after 25 million images.
"""

from configs.stylegan2_shapes import get_config as shapes
from configs.stylegan2_shapes import lazy
from jaxgen.config import section


def get_config():
    config = shapes()
    config.method.generator = section(name="style2_generator", channels=32, max_channels=512)
    config.method.discriminator = section(name="style2_discriminator", channels=32, max_channels=512)
    config.method.r1 = 10.0
    config.data.update(source="folder:FFHQ", resolution=1024, channels=3, flip=True)
    config.optimizers.generator = lazy(4, 2e-3)
    config.optimizers.discriminator = lazy(16, 2e-3)
    config.train.update(
        batch_size=32,
        total_images=25_000_000,
        log_every_images=32_000,
        checkpoint_every_images=200_000,
        sample_every_images=1_000_000,
        ema_decay=0.5 ** (32 / 10_000),  # a half-life of 10,000 images
    )
    config.evaluate.update(num=50_000, real=50_000, batch_size=64, network="filters", metrics=("frechet",))
    return config
