"""unCLIP (DALL-E 2) on captioned shapes at 32 pixels: a text, its image's CLIP embedding, and an image of that.

A chain has no training of its own. Its stages are trained first, by configs/clip_shapes.py, unclip_prior_shapes.py and
unclip_decoder_shapes.py.

Paper: Ramesh et al. 2022, "Hierarchical Text-Conditional Image Generation with CLIP Latents".
Command: python main.py --config=configs/unclip_shapes.py --mode=sample --prompt="a crimson disc at the top" --out=DIR
Hardware and time: two CPU cores; that of the stages.
Expected: attribute_accuracy of at least 0.7 (--mode=evaluate, held-out combinations); not recorded yet, see
    docs/unclip.md.
To change a stage: --config.method.overrides.stage_1.guidance.scale=3.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(name="cascade")
    config.init_from.pretrained = ("runs/unclip_prior_shapes", "runs/unclip_decoder_shapes")
    config.data.update(source="caption_shapes:phrases", eval_split="unseen", resolution=32, channels=3)
    config.evaluate.update(num=200, real=1000, batch_size=50, metrics=("attribute_accuracy",))
    return config
