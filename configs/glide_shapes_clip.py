"""GLIDE guided by a CLIP: the model of configs/glide_shapes.py, whose steps are led by a noise-aware CLIP.

It has no training of its own: the workdir is that of the trained model. The control, a CLIP that never saw noise:
--config.init_from.clip_image=runs/clip_shapes#image --config.guidance.image.timed=False.

Paper: Nichol et al. 2022, "GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided Diffusion
    Models", section 2.4.
Command: python main.py --config=configs/glide_shapes_clip.py --workdir=runs/glide_shapes --mode=sample --out=DIR
    --prompt="a red star at the top", after the commands of configs/glide_shapes.py and configs/clip_shapes_noised.py
Hardware and time: two CPU cores; that of its runs.
Expected: not recorded yet, see docs/glide.md.
"""

from configs import clip_shapes_noised, glide_shapes
from jaxgen.config import section


def get_config():
    config = glide_shapes.get_config()
    clip = clip_shapes_noised.get_config().method
    config.guidance = section(name="clip", scale=3.0, image=clip.image, text=clip.text)
    config.init_from.update(
        clip_image="runs/clip_shapes_noised#image",
        clip_text="runs/clip_shapes#text",  # the noise-aware image tower learned beside this one, which stayed
        clip_scale="runs/clip_shapes#logit_scale",
    )
    return config
