"""Imagen's super-resolution from 16x16 to 64x64 pixels, of captioned shapes, with the text.

It takes the place of configs/imagen_shapes_32.py in the chain configs/imagen_shapes.py.

Paper: Saharia et al. 2022, "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding".
Command: python main.py --config=configs/imagen_shapes_64.py --workdir=runs/imagen_shapes_64, after the command of
    configs/clip_shapes.py
Hardware and time: two CPU cores, about 35 minutes of CPU, which is an estimate.
Expected: not recorded yet.
"""

from configs.imagen_shapes_32 import EFFICIENT
from configs.imagen_shapes_32 import get_config as of_32
from jaxgen.config import section

LARGER = dict(channel_multipliers=(1, 2, 3), blocks=(1, 1, 3), attention_levels=(2,))


def get_config():
    config = of_32()
    config.method.network = section(**{**EFFICIENT, **LARGER})
    config.data.resolution = 64
    config.data.corruptions.condition = section(name="low_resolution", factor=4)
    config.train.update(batch_size=16, total_images=48_000)
    return config
