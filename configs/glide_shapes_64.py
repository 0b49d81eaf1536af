"""GLIDE: shapes of 32 pixels from a text, enlarged to 64 pixels under that text; a chain of two runs.

It has no training of its own. Its stages are trained first, at the same time if there are machines for it:

    python main.py --config=configs/glide_shapes.py --workdir=runs/glide_shapes
    python main.py --config=configs/glide_shapes_upsampler.py --workdir=runs/glide_shapes_upsampler

Paper: Nichol et al. 2022, "GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided Diffusion
    Models".
Command: python main.py --config=configs/glide_shapes_64.py --mode=sample --prompt="a golden hoop at the top" --out=DIR
Hardware and time: two CPU cores, about 35 minutes of CPU for both stages, which is an estimate.
Expected: not recorded yet, see docs/glide.md. To measure it: --mode=evaluate.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="cascade",
        overrides=section(stage_1=section(parts=section(low=section(sampling_noise=0.2)))),
    )
    config.init_from.pretrained = ("runs/glide_shapes", "runs/glide_shapes_upsampler")
    config.data.update(source="caption_shapes:phrases", resolution=64, channels=3)
    config.evaluate.update(num=200, real=1000, batch_size=50, metrics=("attribute_accuracy",))
    return config
