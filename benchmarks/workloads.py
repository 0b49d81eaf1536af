"""Lists what `run.py` times: each row is a model and what is done with it, the same on both sides."""

from __future__ import annotations

import dataclasses
from typing import Any

RATE, CLIP, DECAY, WEIGHT_DECAY = 2e-4, 1.0, 0.999, 1e-2  # of the diffusion models' updates
SAMPLING_STEPS = 50
Z_DIM = 100  # the width of a GAN's z
PENALTY = 10.0  # WGAN-GP's
TRANSLATIONS = ("pix2pix", "cyclegan")  # learning rate and betas are those of DCGAN
GAN_RATES = {"dcgan": (2e-4, 0.5, 0.999), "wgan_gp": (1e-4, 0.0, 0.9)}  # learning rate and Adam's betas
STYLE: dict[str, Any] = {  # a small StyleGAN2, as configs/stylegan2_shapes.py; `widest` times the last level's channels
    "z_dim": 64, "w_dim": 64, "depth": 4, "widest": 4, "r1": 1.0, "path_length": 2.0, "mixing": 0.9,
}  # fmt: skip
SPACE: dict[str, Any] = {  # a triplane GAN without captions, as configs/triplane_solids.py:unconditional
    "z_dim": 64, "widths": (96, 64, 48), "features": 12, "hidden": 32, "samples": 12, "heads": 4, "attention_side": 8,
    "judge": (32, 64, 96, 128),
}  # fmt: skip
TEXT = 77  # tokens of a text that a U-Net sees

# diffusers' class, and its config: jaxgen's networks are those that `jaxgen.interop` finds equal to them
UNET = {
    "in_channels": 3,
    "out_channels": 3,
    "sample_size": 32,
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "attention_head_dim": None,
}
UNET_CIFAR = {  # Ho et al. 2020, section B, for CIFAR-10
    **UNET,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 32,
}
DIT_B = {  # Peebles & Xie 2023, table 1, DiT-B/2 for latents of 256x256 images
    "num_attention_heads": 12,
    "attention_head_dim": 64,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 12,
    "sample_size": 32,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
}
STABLE = {  # Stable Diffusion 1.5 at 512x512
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SMALLER: dict[str, dict[str, Any]] = {
    "unet": {"block_out_channels": (16, 16, 32), "norm_num_groups": 8, "sample_size": 16},
    "unet_cifar": {"block_out_channels": (16, 16, 32, 32), "norm_num_groups": 8, "sample_size": 16},
    "dit_b": {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "sample_size": 8},
    "stable": {"block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 24, "sample_size": 8},
}
MODELS = {
    "unet": ("UNet2DModel", UNET),
    "unet_cifar": ("UNet2DModel", UNET_CIFAR),
    "dit_b": ("DiTTransformer2DModel", DIT_B),
    "stable": ("UNet2DConditionModel", STABLE),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """Describes one line of the table.

    Attributes:
      model: a key of `MODELS`, or dcgan, wgan_gp (its critic's step alone), pix2pix, cyclegan, singan (one scale),
        stylegan2, triplane, vae,
        matmul or start.
      task: "train" for one update, "sample" for a batch of images by DDIM.
      batch: images. size: of a GAN's images, or a matrix. channels: a GAN's base width.
      bar, goal: of the ratio jaxgen / PyTorch; 0 for none.
      steps: timed on each side, in turns of `turn`.
    """

    model: str
    task: str = "train"
    batch: int = 16
    size: int = 64
    channels: int = 64
    bar: float = 0.0
    goal: float = 0.0
    steps: int = 20
    turn: int = 5

    def smaller(self) -> Row:
        """Returns the same with sizes for a trial of every line of code."""
        return dataclasses.replace(self, batch=4, size=16, channels=8, steps=2, turn=1)


CPU = {
    "unet16": Row("unet", bar=1.0, goal=0.9),
    "unet64": Row("unet", batch=64, bar=1.0, goal=0.9, turn=2),
    "ddim": Row("unet", task="sample", bar=0.85, goal=0.75, turn=1),
    "dcgan": Row("dcgan", batch=32, bar=1.3, goal=1.0),
    "wgan_gp": Row("wgan_gp", batch=32),
    "pix2pix": Row("pix2pix", batch=4, channels=16, bar=1.3),
    "cyclegan": Row("cyclegan", batch=4, size=32, channels=16, bar=1.3),
    "singan": Row("singan", batch=1, channels=32, bar=1.3),
    "stylegan2": Row("stylegan2", batch=32, size=32, channels=16, bar=1.3, steps=48, turn=16),  # a round of penalties
    "triplane": Row("triplane", batch=16, size=32, steps=24, turn=8),
    "vae": Row("vae", batch=100, bar=1.0, goal=0.8, steps=500, turn=50),
}
# on a GPU a ratio of throughputs is asked for: 1.0 in training, 1.2 in sampling
GPU = {
    "dit_b": Row("dit_b", batch=256, bar=1.0),
    "dit_b_ddim": Row("dit_b", task="sample", batch=64, bar=1 / 1.2, turn=2),
    "unet_cifar": Row("unet_cifar", batch=256, bar=1.0),
    "unet_cifar_ddim": Row("unet_cifar", task="sample", batch=256, bar=1 / 1.2, turn=2),
    "stable": Row("stable", batch=16, bar=1.0),
    "stable_ddim": Row("stable", task="sample", batch=8, bar=1 / 1.2, turn=2),
}
ROWS = {"cpu": CPU, "gpu": GPU}
MATMUL = {"cpu": 2048, "gpu": 8192}  # side of the matrices whose product is the ceiling


def diffusers_config(model: str, small: bool) -> tuple[str, dict[str, Any]]:
    """Returns diffusers' class of a model and its config."""
    name, config = MODELS[model]
    return name, {**config, **SMALLER[model]} if small else config
