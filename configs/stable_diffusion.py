"""Stable Diffusion 1 or 2 from a folder that diffusers wrote: text to image, without training.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models".
Command: python main.py --config=configs/stable_diffusion.py --config.init_from.pretrained=FOLDER --mode=sample
    --prompt="a photograph of an astronaut riding a horse" --out=DIR
Hardware and time: not measured.
Expected: for the same latents the image of diffusers' pipeline; docs/stable_diffusion.md.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.init_from.pretrained = ""  # the folder: networks, noise, grid and weights come from it
    config.method = section(
        name="stable_diffusion",
        height=0,  # of the images, in pixels; 0: as the folder says
        width=0,
        dtype="float32",  # of the arithmetic; "bfloat16" where that is faster
        param_dtype="float32",  # of the weights; "": as the files have them
    )
    config.sampler = section(name="ddim", steps=50, clip=False, guidance_scale=7.5)
    config.data.source = "none"  # it does not train
    config.train.total_images = 1
    config.evaluate.batch_size = 1
    return config
