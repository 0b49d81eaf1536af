"""Reads and writes folders of diffusers' `StableDiffusionPipeline`, which have these files:

    model_index.json                 the class of each part
    unet/, vae/                      config.json and diffusion_pytorch_model.safetensors
    text_encoder/                    config.json and model.safetensors
    tokenizer/                       vocab.json and merges.txt, or tokenizer.json
    scheduler/                       scheduler_config.json

The networks' shapes come from these files. Weights are read one tensor at a time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.data import tokenizer_files
from jaxgen.data.clip_tokenizer import ClipTokenizer
from jaxgen.errors import UserError
from jaxgen.files import write_json
from jaxgen.interop import clip
from jaxgen.interop.diffusers_autoencoder import (
    SCALING,
    autoencoder_config,
    autoencoder_from_diffusers,
    autoencoder_options,
    autoencoder_to_diffusers,
)
from jaxgen.interop.diffusers_condition_unet import (
    condition_unet_config,
    condition_unet_from_diffusers,
    condition_unet_options,
    condition_unet_to_diffusers,
)
from jaxgen.interop.diffusers_files import (
    CONFIG,
    MODEL,
    TEXT_MODEL,
    Entry,
    Weights,
    open_weights,
    read_json,
    save_weights,
)
from jaxgen.interop.diffusers_layers import Placer
from jaxgen.interop.diffusers_scheduler import Noise, noise_from_diffusers, noise_to_diffusers
from jaxgen.interop.file_types import AutoencoderFile, ClipFile, ModelIndex, UNetFile
from jaxgen.networks.autoencoder_kl import AutoencoderKL
from jaxgen.networks.pretrained.clip import TextTower
from jaxgen.networks.unet import UNet

INDEX, SCHEDULER = "model_index.json", "scheduler_config.json"
PIPELINES = ("StableDiffusionPipeline",)
FOLDERS = {"denoiser": "unet", "autoencoder": "vae", "text": "text_encoder"}  # {parameter group: folder}
TYPES: dict[str, type] = {"unet": UNetFile, "vae": AutoencoderFile, "text_encoder": ClipFile}
PARTS = {
    "scheduler": ("diffusers", ""),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
}


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Describes a text-to-image model without its weights.

    Attributes:
      unet: the denoiser.
      autoencoder: the network between images and latents.
      text: the text encoder.
      noise: the schedule, prediction type and spacing.
      scaling: the factor that latents were multiplied by before diffusion.
      latent_size: the usual height and width of the latents.
      length: the number of tokens of a text.
      configs: the folder's configs by part, which are `unet`, `vae`, `text_encoder` and `scheduler`.
      tokenizer_files: the tokenizer's files, `{name: bytes}`.
    """

    unet: UNet
    autoencoder: AutoencoderKL
    text: TextTower
    noise: Noise
    scaling: float
    latent_size: tuple[int, int]
    length: int
    configs: Mapping[str, Mapping[str, Any]]
    tokenizer_files: Mapping[str, bytes]

    def model_fields(self) -> dict[str, Any]:
        """Returns what `jaxgen.methods.diffusion.latent_diffusion.LatentDiffusion` and its subclasses have of it."""
        return {
            "network": self.unet,
            "autoencoder": self.autoencoder,
            "text": self.text,
            "schedule": self.noise.schedule,
            "prediction_type": self.noise.prediction_type,
            "spacing": self.noise.walk,
            "scale": self.scaling,
        }

    def method_fields(self) -> dict[str, Any]:
        """Returns the fields of `jaxgen.methods.diffusion.stable_diffusion.StableDiffusion` except the sampler."""
        return {**self.model_fields(), "latent_size": self.latent_size}

    def training_fields(self, tokenizer: ClipTokenizer) -> dict[str, Any]:
        """Returns the fields of `jaxgen.methods.diffusion.latent_diffusion.LatentDiffusion` except the sampler."""
        return {
            **self.model_fields(),
            "text_learns": False,
            "empty": (tokenizer.start, tokenizer.end),
            "pad": tokenizer.pad,
            "mask_padding": False,
            "knows_null": True,
        }


def read_pipeline(folder: str | os.PathLike[str]) -> Pipeline:
    """Reads the JSON files of a folder, without its weights.

    Raises:
      UserError: the folder is no Stable Diffusion pipeline, a file is missing or damaged, or an entry has no equivalent
        here.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} with a pretrained pipeline of diffusers.")
    name = read_json(folder / INDEX, "says what a folder of diffusers holds", ModelIndex).get("_class_name")
    if name not in PIPELINES:
        raise UserError(f"{folder / INDEX} is of {name!r}, which is not read here; known is {', '.join(PIPELINES)}.")
    configs = _read_configs(folder)
    configs["scheduler"] = read_json(folder / "scheduler" / SCHEDULER, "says how noise was added")
    unet_config, vae_config = configs["unet"], configs["vae"]
    noise = noise_from_diffusers(configs["scheduler"], f"{folder / 'scheduler' / SCHEDULER}")
    levels = noise.schedule.steps
    unet = UNet(**condition_unet_options(unet_config), time_scale=levels / 1000)
    autoencoder = AutoencoderKL(**autoencoder_options(vae_config))
    text = _text(folder, configs["text_encoder"])
    _check_fit(folder, unet, autoencoder, text, int(unet_config.get("in_channels", 4)))
    side = unet_config.get("sample_size") or 64
    height, width = (side, side) if isinstance(side, int) else side
    files = {name: (folder / "tokenizer" / name) for name in tokenizer_files.FILES}
    return Pipeline(
        unet=unet,
        autoencoder=autoencoder,
        text=text,
        noise=noise,
        scaling=float(vae_config.get("scaling_factor") or SCALING),
        latent_size=(int(height), int(width)),
        length=_length(folder / "tokenizer", text.length),
        configs=configs,
        tokenizer_files={name: path.read_bytes() for name, path in files.items() if path.is_file()},
    )


def _read_configs(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    return {
        part: read_json(folder / part / CONFIG, f"gives the shapes of the {part}", TYPES[part])
        for part in FOLDERS.values()
    }


def _text(folder: pathlib.Path, config: Mapping[str, Any]) -> TextTower:
    if config.get("use_attention_mask"):
        raise UserError(f"{folder / 'text_encoder' / CONFIG}: use_attention_mask=True has no equivalent here.")
    kinds = config.get("architectures") or ["CLIPTextModel"]
    if kinds[0] not in ("CLIPTextModel", "CLIPModel"):
        raise UserError(f"{folder / 'text_encoder' / CONFIG} is of {kinds[0]!r}; only a CLIPTextModel is read here.")
    return clip.text_tower(config)


def _check_fit(folder: pathlib.Path, unet: UNet, autoencoder: AutoencoderKL, text: TextTower, channels: int) -> None:
    latents = autoencoder.latent_channels
    if (channels, unet.out_channels) != (latents, latents):
        raise UserError(
            f"{folder}: the unet takes {channels} channels and gives {unet.out_channels}, but the vae's latents have "
            f"{latents}; networks for inpainting or super-resolution are not read here."
        )
    if unet.context_dim != text.width:
        raise UserError(
            f"{folder}: the unet takes texts of {unet.context_dim} features, but the text_encoder gives {text.width}."
        )
    if unet.num_classes or unet.class_embedding != "table":
        raise UserError(f"{folder}: the unet needs labels as well as texts, which no pipeline here has.")


def _length(folder: pathlib.Path, most: int) -> int:
    """Returns the number of tokens of a text: the tokenizer's, but at most what the text tower reads."""
    said = tokenizer_files.max_length(folder)
    return most if said is None else min(most, int(min(said, most)))


def is_pipeline(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a folder is one that diffusers writes."""
    return (pathlib.Path(folder) / INDEX).is_file()


def read_tokenizer(folder: str | os.PathLike[str], length: int = 77) -> ClipTokenizer:
    """Reads the tokenizer in a pipeline's folder; a text has `length` ids.

    Raises:
      UserError: it is missing or damaged.
    """
    return ClipTokenizer.from_folder(pathlib.Path(folder) / "tokenizer", length=length)


def read_params(
    folder: str | os.PathLike[str], dtype: str = "float32", place: Placer = lambda array: array
) -> dict[str, Any]:
    """Reads the weights of a folder as `{"denoiser": ..., "autoencoder": ..., "text": ...}`, one tensor at a time.

    Args:
      folder: the pipeline's folder.
      dtype: the type of the params; "" keeps that of the files.
      place: what each array passes through, such as `jax.device_put`.

    Raises:
      UserError: as `read_pipeline`, or the weights do not fit their config.
    """
    folder = pathlib.Path(folder)
    _read_configs(folder)
    for group in FOLDERS:
        open_group(folder, group)
    found = {group: read_group(folder, group, dtype, place) for group in ("text", "autoencoder", "denoiser")}
    return {group: found[group] for group in FOLDERS}


def open_group(folder: str | os.PathLike[str], group: str) -> Weights:
    """Opens the weights of one group, which is a key of `FOLDERS`. Raises UserError if they are missing or damaged."""
    part = FOLDERS[group]
    return open_weights(pathlib.Path(folder) / part, TEXT_MODEL if part == "text_encoder" else MODEL)


def read_group(
    folder: str | os.PathLike[str], group: str, dtype: str = "float32", place: Placer = lambda array: array
) -> dict[str, Any]:
    """Reads the weights of one group, which is a key of `FOLDERS`; the other arguments are those of `read_params`."""
    folder, part = pathlib.Path(folder), FOLDERS[group]
    config = read_json(folder / part / CONFIG, f"gives the shapes of the {part}", TYPES[part])
    weights = open_group(folder, group)
    if group == "text":
        return _text_params(folder, weights, config, dtype, place)
    if group == "autoencoder":
        return autoencoder_from_diffusers(weights, config, dtype, place)[1]
    return condition_unet_from_diffusers(weights, config, dtype, place)[1]


def weights_digest(folder: str | os.PathLike[str], group: str) -> str:
    """Returns the SHA-256 of the names, types, shapes and numbers of a group's tensors as the files have them."""
    weights, total = open_group(folder, group), hashlib.sha256()
    for name in sorted(weights):
        array = weights[name]
        total.update(f"{name}{array.dtype}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _text_params(
    folder: pathlib.Path, state: Weights, config: Mapping[str, Any], dtype: str, place: Placer
) -> dict[str, Any]:
    try:
        _, params = clip.text_from_transformers(state, config)
    except UserError as error:
        raise UserError(f"{folder / 'text_encoder'}: {error}") from error
    kinds = [there.dtype for there in state.places.values() if jnp.issubdtype(there.dtype, jnp.floating)]
    kind = jnp.dtype(dtype) if dtype else kinds[0]
    return jax.tree.map(lambda array: place(np.ascontiguousarray(array, kind)), params)


def new_pipeline(
    unet: UNet,
    autoencoder: AutoencoderKL,
    text: TextTower,
    noise: Noise,
    scaling: float,
    tokenizer: str | os.PathLike[str],
    latent_size: tuple[int, int] = (64, 64),
) -> Pipeline:
    """Makes a pipeline of networks that were made here, with configs for `save_pipeline`.

    Args:
      unet: the denoiser.
      autoencoder: the network between images and latents.
      text: the text encoder.
      noise: the schedule, prediction type and spacing.
      scaling: the factor that latents were multiplied by before diffusion.
      tokenizer: a folder with the tokenizer's files.
      latent_size: the usual height and width of the latents.

    Raises:
      UserError: diffusers has no equivalent for one of them.
    """
    folder = pathlib.Path(tokenizer)
    files = {name: (folder / name).read_bytes() for name in tokenizer_files.FILES if (folder / name).is_file()}
    if not files:
        raise UserError(f"{folder} holds no tokenizer: none of {', '.join(tokenizer_files.FILES[:3])} is there.")
    configs = {
        "unet": condition_unet_config(unet, autoencoder.latent_channels, max(latent_size)),
        "vae": autoencoder_config(
            autoencoder, autoencoder.out_channels, scaling, max(latent_size) * autoencoder.factor
        ),
        "text_encoder": clip.text_config(text),
        "scheduler": noise_to_diffusers(noise),
    }
    length = _length(folder, text.length)
    return Pipeline(unet, autoencoder, text, noise, scaling, latent_size, length, configs, files)


def save_pipeline(
    folder: str | os.PathLike[str], pipeline: Pipeline, params: Mapping[str, Any], dtype: str = ""
) -> None:
    """Writes a folder that `StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)` reads.

    Args:
      folder: the folder, which is created if it is missing.
      pipeline: the networks, configs and tokenizer.
      params: the groups `denoiser`, `autoencoder` and `text`.
      dtype: the type of all weights in the files, such as "float16"; by default each keeps its own.

    Raises:
      UserError: the params do not belong to the pipeline's networks.
    """
    folder = pathlib.Path(folder)
    scheduler = pipeline.configs["scheduler"]["_class_name"]
    parts = {name: [library, kind or scheduler] for name, (library, kind) in PARTS.items()}
    empty = {name: [None, None] for name in ("feature_extractor", "image_encoder", "safety_checker")}
    write_json(
        folder / INDEX,
        {"_class_name": "StableDiffusionPipeline", **parts, **empty, "requires_safety_checker": False},
    )
    for part, config in pipeline.configs.items():
        write_json(folder / part / (SCHEDULER if part == "scheduler" else CONFIG), config)
    linear = bool(pipeline.configs["unet"].get("use_linear_projection", False))
    save_weights(
        folder / "unet" / f"{MODEL}.safetensors",
        condition_unet_to_diffusers(params["denoiser"], pipeline.unet, linear),
        dtype,
    )
    save_weights(
        folder / "vae" / f"{MODEL}.safetensors",
        autoencoder_to_diffusers(params["autoencoder"], pipeline.autoencoder),
        dtype,
    )
    save_weights(
        folder / "text_encoder" / f"{TEXT_MODEL}.safetensors", _text_entries(params["text"], pipeline.text), dtype
    )
    (folder / "tokenizer").mkdir(exist_ok=True)
    for name, content in pipeline.tokenizer_files.items():
        (folder / "tokenizer" / name).write_bytes(content)


def _text_entries(params: Mapping[str, Any], text: TextTower) -> Iterator[Entry]:
    for ours, theirs, axes in clip.text_names(text.depth):
        leaf: Any = params
        for part in ours.split("/"):
            if part not in leaf:
                raise UserError(f"params lack {ours} of the text tower: they do not belong to this network.")
            leaf = leaf[part]
        yield Entry(theirs, leaf, tuple(axes.index(axis) for axis in range(len(axes))))
