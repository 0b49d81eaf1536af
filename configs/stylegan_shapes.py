"""StyleGAN on shapes (32x32), one coloured shape on black, at its last resolution from the start.

Paper: Karras et al. 2019, "A Style-Based Generator Architecture for Generative Adversarial Networks"; its networks grow
    from 8 pixels on, which these do not.
Command: python main.py --config=configs/stylegan_shapes.py --workdir=runs/stylegan_shapes
    Without mixed styles: --config.method.mixing=0
Hardware and time: two CPU cores, 40 minutes of CPU, which is an estimate.
Expected: not recorded yet.
"""

from configs.stylegan2_shapes import get_config as stylegan2
from jaxgen.config import section


def get_config():
    config = stylegan2()
    config.method.generator.update(name="style_generator", mean_decay=0.995)
    config.method.discriminator.residual = False
    config.method.update(path_length=0.0, r1_every=1)
    config.optimizers = section()
    config.train.total_images = 120_000
    return config
