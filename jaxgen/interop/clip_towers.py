"""Reads and writes the towers of a CLIP run as a folder of transformers' `CLIPModel`.

A run of the method `clip` sees images in [-1, 1], and its towers end in a projection. transformers normalises images by
a mean and a standard deviation, which `preprocessor_config.json` says, and keeps the projections beside the towers.
What is read is changed so that it gives the same embeddings of images in [-1, 1]: the normalisation becomes a part of
the kernel of the patches and, since it moves every patch by the same, of their positions.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any, TypedDict

import flax.linen as nn
import numpy as np

from jaxgen.data.word_tokenizer import END, FIRST, PAD, UNKNOWN, WORD, WordTokenizer
from jaxgen.errors import UserError, nearest
from jaxgen.files import read_json, write_bytes, write_json
from jaxgen.interop.clip import load_clip, save_clip
from jaxgen.networks.pretrained.clip import CLIP, ImageTower, TextTower

GROUPS = ("image", "text", "logit_scale")
PREPROCESSOR = "preprocessor_config.json"
VOCABULARY = "vocabulary.json"  # of a tokenizer of whole words, beside the files that transformers reads
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of the published CLIP
HALF = (0.5, 0.5, 0.5)  # mean and standard deviation that bring [0, 1] to [-1, 1]
SPECIAL = {PAD: "<pad>", END: "<end>", UNKNOWN: "<unknown>"}


class Preprocessor(TypedDict, total=False):
    """Is what is read of `preprocessor_config.json`."""

    image_mean: list[float]
    image_std: list[float]


def normalisation(folder: str | os.PathLike[str]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of channels in [0, 1] that a folder's images are normalised by; those of the
    published CLIP where it does not say.

    Raises:
      UserError: the folder's file is damaged, or does not have three numbers of each.
    """
    path = pathlib.Path(folder) / PREPROCESSOR
    if not path.exists():
        return MEAN, STD
    found = read_json(path, Preprocessor)
    mean, std = tuple(found.get("image_mean", MEAN)), tuple(found.get("image_std", STD))
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise UserError(
            f"{path}: image_mean and image_std have a number for each channel, and those of image_std are above 0."
        )
    return mean, std


def load_towers(folder: str | os.PathLike[str]) -> tuple[ImageTower, TextTower, dict[str, Any]]:
    """Returns the towers of a `CLIPModel`'s folder, and `{group: parameters}` as a run of the method `clip` has them.

    Raises:
      UserError: as `load_clip` and `normalisation`.
    """
    clip, params = load_clip(folder)
    mean, std = (np.asarray(values, np.float64) for values in normalisation(folder))
    if len(mean) != clip.image.channels:
        raise UserError(f"{folder}: its images have {clip.image.channels} channels, and {PREPROCESSOR} {len(mean)}.")
    image, text = clip.image.clone(projection=clip.projection), clip.text.clone(projection=clip.projection)
    found = {
        "image": {**_normalised(params["image"], mean, std), "projection": params["image_projection"]},
        "text": {**params["text"], "projection": params["text_projection"]},
        "logit_scale": {"logit_scale": params["logit_scale"]},
    }
    return image, text, found


def load_group(folder: str | os.PathLike[str], group: str) -> Any:
    """Returns the parameters of one group of `load_towers`. Raises a UserError for an unknown group, and as that."""
    if group not in GROUPS:
        raise UserError(f"{folder}, a folder of a CLIPModel, has no group {group!r}; {nearest(group, GROUPS)}")
    return load_towers(folder)[2][group]


def _normalised(image: Mapping[str, Any], mean: np.ndarray, std: np.ndarray) -> dict[str, Any]:
    """Returns the parameters of an image tower of x in [-1, 1], from those of one of ((x + 1) / 2 - mean) / std."""
    kernel = np.asarray(image["patch"], np.float64)  # [p, p, C, D]
    moved = (kernel * ((0.5 - mean) / std)[:, None]).sum(axis=(0, 1, 2))  # what every patch gains
    position = np.asarray(image["position"], np.float64).copy()
    position[1:] += moved  # those behind the class token
    return {
        **image,
        "patch": (kernel / (2 * std)[:, None]).astype(np.float32),
        "position": position.astype(np.float32),
    }


def save_towers(
    folder: str | os.PathLike[str],
    image: nn.Module,
    text: nn.Module,
    params: Mapping[str, Any],
    tokenizer: WordTokenizer | None = None,
) -> None:
    """Writes a folder that `CLIPModel.from_pretrained` reads, with the file of its images' normalisation.

    With a tokenizer of whole words the folder has `tokenizer.json`, which `PreTrainedTokenizerFast` reads, too. That
    gives `<unknown>` for a word that it does not know, where a strict tokenizer here refuses it.

    Args:
      params: `{group: parameters}` of a run of the method `clip`.

    Raises:
      UserError: the towers are none that a `CLIPModel` has.
    """
    if not isinstance(image, ImageTower) or not isinstance(text, TextTower) or image.timed:
        noisy = " of noisy images" if getattr(image, "timed", False) else ""
        raise UserError(
            "A CLIPModel of transformers has an image_tower of clean images and a text_tower; this run has "
            f"{type(image).__name__}{noisy} and {type(text).__name__}, and cannot be written as one."
        )
    if "logit_scale" not in params or not image.projection:
        raise UserError("This run learned captions alone: it has no space of images and texts, which a CLIPModel has.")
    network = CLIP(image.clone(projection=0), text.clone(projection=0), image.projection)
    parts = {
        **{tower: {k: v for k, v in params[tower].items() if k != "projection"} for tower in ("image", "text")},
        **{f"{tower}_projection": params[tower]["projection"] for tower in ("image", "text")},
        "logit_scale": params["logit_scale"]["logit_scale"],
    }
    place = pathlib.Path(folder)
    save_clip(place, network, parts)
    side = image.size
    write_json(place / PREPROCESSOR, {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": side},
        "resample": 3, "do_center_crop": True, "crop_size": {"height": side, "width": side}, "do_rescale": True,
        "do_normalize": True, "do_convert_rgb": True, "image_mean": [*HALF], "image_std": [*HALF],
    })  # fmt: skip
    if tokenizer is not None:
        _write_words(place, tokenizer)


def _write_words(folder: pathlib.Path, tokenizer: WordTokenizer) -> None:
    """Writes a tokenizer of whole words, for transformers and for jaxgen."""
    import tokenizers
    from tokenizers import Regex, models, normalizers, pre_tokenizers, processors

    vocabulary = {name: number for number, name in SPECIAL.items()}
    vocabulary |= {word: FIRST + i for i, word in enumerate(tokenizer.words)}
    found = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[UNKNOWN]))
    found.normalizer = normalizers.Lowercase()
    words = WORD.pattern.replace(r"[^\W_]", r"[\p{L}\p{N}]")  # the same letters and digits, as its engine spells them
    found.pre_tokenizer = pre_tokenizers.Split(Regex(words), "removed", invert=True)
    ends = [(SPECIAL[END], END)]
    found.post_processor = processors.TemplateProcessing(single=f"$A {SPECIAL[END]}", special_tokens=ends)
    write_bytes(folder / "tokenizer.json", found.to_str(pretty=True).encode())
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": tokenizer.length,
        "pad_token": SPECIAL[PAD], "eos_token": SPECIAL[END], "unk_token": SPECIAL[UNKNOWN],
    })  # fmt: skip
    write_bytes(folder / VOCABULARY, tokenizer.to_json().encode())
