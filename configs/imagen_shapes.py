"""Imagen on two cores: shapes of 16x16 pixels from a text, enlarged to 32x32 pixels; a chain of two runs.

It has no training of its own. Its stages are trained first, at the same time if there are machines for it:

    python main.py --config=configs/clip_shapes.py --workdir=runs/clip_shapes
    python main.py --config=configs/imagen_shapes_base.py --workdir=runs/imagen_shapes_base
    python main.py --config=configs/imagen_shapes_32.py --workdir=runs/imagen_shapes_32

Paper: Saharia et al. 2022, "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding".
Command: python main.py --config=configs/imagen_shapes.py --mode=sample --prompt="a golden hoop at the top" --out=DIR
Hardware and time: two CPU cores, about 25 minutes of CPU for both stages, which is an estimate from shorter runs.
Expected: not recorded yet at full length. After 12,000 and 5,000 images (276 seconds of CPU) colour is right in 0.94,
    and place in 0.92, of the images of held-out combinations; shapes are at chance (docs/imagen.md). To measure it:
    --mode=evaluate.
For 64x64 pixels: configs/imagen_shapes_64.py in the place of the second run, and --config.data.resolution=64.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="cascade",
        overrides=section(stage_1=section(parts=section(low=section(sampling_noise=0.2)))),
    )
    config.init_from.pretrained = ("runs/imagen_shapes_base", "runs/imagen_shapes_32")
    config.data.update(source="caption_shapes:phrases", eval_split="unseen", resolution=32, channels=3)
    config.evaluate.update(num=200, real=1000, batch_size=50, metrics=("attribute_accuracy", "saturated_share"))
    return config
