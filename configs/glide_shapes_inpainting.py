"""GLIDE's inpainting: the trained text-to-image model learns to fill holes as a text says.

The whole model learns on, and gains input channels for the picture and its mask, whose weights start at zero.

Paper: Nichol et al. 2022, "GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided Diffusion
    Models", section 2.2.
Command: python main.py --config=configs/glide_shapes_inpainting.py --workdir=runs/glide_shapes_inpainting, after the
    command of configs/glide_shapes.py
Hardware and time: two CPU cores, about 12 minutes of CPU, which is an estimate.
Expected: not recorded yet at full length, see docs/glide.md.
To fill a hole: --mode=sample --image=photo.png --mask=mask.png --prompt="a red circle at the top" --out=DIR.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.init_from.pretrained = "runs/glide_shapes"
    config.method = section(
        name="tuned",
        grafts=section(
            all=section(name="leaves"),
            hole=section(name="inpainting"),
            words=section(name="leaves", group="text"),
        ),
    )
    config.data.update(source="caption_shapes:phrases", resolution=32, channels=3)
    config.data.corruptions.condition = section(name="hole", form="box", share=0.8)
    config.optimizer.update(learning_rate=5e-4, warmup_images=1_000, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=16,
        total_images=32_000,
        log_every_images=2_000,
        checkpoint_every_images=4_000,
        sample_every_images=0,
        ema_decay=0.998,
    )
    config.evaluate.update(num=200, real=1000, batch_size=50, metrics=("attribute_accuracy", "known_pixels"))
    return config
