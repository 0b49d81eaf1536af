"""Loads weights that come from no run: `config.init_from.<group>=<kind>:<what>`.

classifier:digits, classifier:fashion   the classifiers that come with the package
lpips:alex, lpips:vgg         LPIPS as published; lpips:vgg:FOLDER where its files are in FOLDER
autoencoder_kl:FOLDER         diffusers' AutoencoderKL, a folder of config.json and safetensors, with the scale of
                              its latents
clip_text:FOLDER              transformers' CLIPTextModel, such as the `text_encoder` of Stable Diffusion
clip:FOLDER#image             a tower of transformers' CLIPModel with its projection, as a run of `clip` has it; also
                              #text and #logit_scale
t5_encoder:FOLDER             transformers' T5EncoderModel, or the encoder of a whole T5
pix2pix:FILE                  a network of pix2pix, CycleGAN or pix2pixHD, such as the authors' `latest_net_G.pth`
"""

from __future__ import annotations

import os
import pathlib

import numpy as np

from jaxgen.arrays import Tree
from jaxgen.errors import UserError
from jaxgen.files import user_path


def published(source: str) -> tuple[Tree, Tree | None] | None:
    """Returns the parameters that a source names, and a memory entry or None; None where the source is a run's folder.

    Raises:
      UserError: for an unknown name, or weights that cannot be read.
    """
    kind, colon, rest = str(source).partition(":")
    name, _, folder = rest.partition(":")
    if kind == "judge" and colon:
        raise UserError(f"config.init_from: {source!r} is called 'classifier:{rest}' now.")
    if kind == "classifier" and colon:
        from jaxgen.metrics.networks.classifier import packaged

        return packaged(name, "config.init_from: classifier").weights(), None
    if kind == "lpips" and colon:
        from jaxgen.interop.feature_networks.lpips import load_lpips

        return load_lpips(name, _path(folder) if folder else ""), None
    if kind == "autoencoder_kl" and colon:
        return _autoencoder(_path(rest))
    if kind == "clip_text" and colon:
        from jaxgen.interop.clip import load_text

        return load_text(_path(rest))[1], None
    if kind == "clip" and colon:
        from jaxgen.interop.clip_towers import load_group

        place, _, group = rest.partition("#")
        return load_group(_path(place), group), None
    if kind == "t5_encoder" and colon:
        from jaxgen.interop.text_encoders.t5 import load_t5

        return load_t5(_path(rest))[1], None
    if kind == "pix2pix" and colon:
        from jaxgen.interop.translation.networks import read

        _, params, carried = read(os.fspath(user_path(rest, "the file in config.init_from")))
        return params, carried or None
    return None


def _path(text: str) -> str:
    return os.fspath(user_path(text, "the folder in config.init_from", hub=True))


def _autoencoder(folder: str) -> tuple[Tree, Tree]:
    from jaxgen.interop.diffusers_autoencoder import SCALING, autoencoder_from_diffusers
    from jaxgen.interop.diffusers_files import open_weights, read_json
    from jaxgen.interop.file_types import AutoencoderFile

    config = read_json(pathlib.Path(folder) / "config.json", "gives the shapes of the autoencoder", AutoencoderFile)
    _, params = autoencoder_from_diffusers(open_weights(folder), config)
    # the moments of latents whose standard deviation is 1 / scale, as `methods.autoencoders.kl_autoencoder` has them
    square = 1 / float(config.get("scaling_factor") or SCALING) ** 2
    return params, {name: np.float32(x) for name, x in (("weight", 1.0), ("mean", 0.0), ("square", square))}
