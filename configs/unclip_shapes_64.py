"""unCLIP on captioned shapes at 64 pixels: prior, decoder, and the upsampler behind them.

Its stages are those of configs/unclip_shapes.py, and the run of configs/unclip_upsampler_shapes.py.

Paper: Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents".
Command: python main.py --config=configs/unclip_shapes_64.py --mode=sample --prompt="a rosy hoop at the left" --out=DIR
Hardware and time: two CPU cores; that of the stages.
Expected: not recorded yet, see docs/unclip.md.
"""

from configs import unclip_shapes
from jaxgen.config import section


def get_config():
    config = unclip_shapes.get_config()
    config.method.overrides = section(stage_2=section(parts=section(low=section(sampling_noise=0.1))))
    config.init_from.pretrained = (*config.init_from.pretrained, "runs/unclip_upsampler_shapes")
    config.data.resolution = 64
    return config
