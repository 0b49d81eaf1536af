"""Stable Diffusion 1 or 2 from a folder that diffusers wrote: text to image, without training.

Paper: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models".
Command: python main.py --config=configs/stable_diffusion.py --config.init_from.pretrained=FOLDER --mode=sample
    --prompt="a photograph of an astronaut riding a horse" --out=DIR
Hardware and time: they have not been measured.
Expected: the same image as diffusers' pipeline for the same latents (docs/stable_diffusion.md).
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.init_from.pretrained = ""  # the folder that gives networks, schedule, spacing and weights
    config.method = section(
        name="stable_diffusion",
        height=0,  # the images' height in pixels; 0 takes that of the folder
        width=0,
        dtype="float32",  # the type of the arithmetic; "bfloat16" is faster on some machines
        param_dtype="float32",  # the type of the weights; "" keeps that of the files
    )
    config.sampler = section(name="ddim", steps=50, clip=False, guidance_scale=7.5)
    config.data.source = "none"  # this model is not trained
    config.train.total_images = 1
    config.evaluate.batch_size = 1
    return config
