"""CLIP's view of images and texts: embeddings as features, and the CLIP score."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxgen.data.clip_tokenizer import ClipTokenizer
from jaxgen.downloads import locate
from jaxgen.errors import UserError
from jaxgen.interop.clip import load_clip, load_published, published
from jaxgen.metrics.features import Extractor, Features, digest
from jaxgen.networks.pretrained.clip import CLIP

MODEL = "clip-vit-base-patch32"  # that of Hessel et al. (2021)
# of the images in [0, 1] that CLIP was trained on
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def crop_square(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 `[N, size, size, 3]` of uint8 images `[N, H, W, C]`: CLIP's own resize.

    The shorter side comes to `size` by Pillow's bicubic filter (with antialias, in uint8), then the centre is cut out.
    Grey images are repeated to three channels.

    Raises:
      UserError: for anything but uint8 images, grey or RGB.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(f"CLIP sees uint8 images [N, H, W, C], grey or RGB, not {images.dtype} of {images.shape}.")
    height, width, channels = images.shape[1:]
    short = min(height, width)
    new = [size if side == short else int(size * side / short) for side in (height, width)]
    top, left = ((side - size) // 2 for side in new)
    if (height, width) != (size, size):
        resized = np.empty((len(images), size, size, channels), np.uint8)
        for image, target in zip(images, resized, strict=True):
            whole = Image.fromarray(image.squeeze(-1) if channels == 1 else image)
            whole = np.asarray(whole.resize((new[1], new[0]), Image.Resampling.BICUBIC)).reshape(*new, channels)
            target[:] = whole[top : top + size, left : left + size]
        images = resized
    return np.repeat(images, 3, -1) if channels == 1 else images


class Clip:
    """CLIP as a `FeatureNetwork`, with its texts.

    Attributes:
      name: "clip". model: the published model's name, or the folder's.
    """

    name = "clip"

    def __init__(
        self,
        weights: str | os.PathLike[str] = "",
        model: str = MODEL,
        made: tuple[CLIP, dict[str, Any], ClipTokenizer] | None = None,
    ):
        """Args:
          weights: a folder as `CLIPModel.save_pretrained` and its tokenizer write; by default the published files
            of `model`, found or fetched as `jaxgen.downloads.locate` says.
          model: of `jaxgen.interop.clip.PUBLISHED`.
          made: network, parameters and tokenizer, instead of files.

        Raises:
          UserError: for an unknown model, and files that cannot be had or are others.
        """
        self.model = pathlib.Path(weights).name if weights else model
        self._folder, self._made = weights, made
        if made is not None:
            self.network, self._params = made[:2]
        else:
            self.network, self._params = load_clip(weights) if weights else load_published(model)
        self.resize = f"bicubic, shorter side to {self.network.image.size}, centre crop"

    @functools.cached_property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of its weights."""
        return digest(self._params)

    @functools.cached_property
    def tokenizer(self) -> ClipTokenizer:
        """Of its texts. Raises UserError where the folder has none."""
        if self._made is not None:
            return self._made[2]
        if self._folder:
            return ClipTokenizer.from_folder(self._folder)
        return ClipTokenizer.from_file(locate(published(self.model)["tokenizer"]))

    @functools.cached_property
    def _images(self) -> Extractor:
        def embed(params: Any, images: jax.Array) -> jax.Array:
            normal = (images.astype(jnp.float32) / 255 - jnp.asarray(MEAN)) / jnp.asarray(STD)
            return self.network.apply({"params": params}, normal, method="embed_image")

        return Extractor(embed, self._part("image"))

    @functools.cached_property
    def _texts(self) -> Extractor:
        def embed(params: Any, tokens: jax.Array) -> jax.Array:
            return self.network.apply({"params": params}, tokens, method="embed_text")

        return Extractor(embed, self._part("text"))

    def _part(self, tower: str) -> dict[str, Any]:
        """The parameters that one tower's embedding takes."""
        return {name: self._params[name] for name in (tower, f"{tower}_projection", "logit_scale")}

    def __call__(self, images: np.ndarray, batch: int = 64) -> Features:
        """Image embeddings `[N, D]`, projected and not of unit length, of uint8 images `[N, H, W, C]`.

        Raises:
          UserError: for anything but uint8 images, grey or RGB.
        """
        size = self.network.image.size
        parts = [self._images(crop_square(images[i : i + batch], size), batch) for i in range(0, len(images), batch)]
        if not parts:
            raise UserError("CLIP was given no images.")
        return Features(np.concatenate(parts))

    def embed_texts(self, texts: Sequence[str], batch: int = 64) -> np.ndarray:
        """Text embeddings `[N, D]`, projected and not of unit length; texts too long for CLIP are truncated."""
        tokens = self.tokenizer.tokenize(texts, self.network.text.length)
        return self._texts(tokens, batch)


@dataclasses.dataclass(frozen=True)
class ClipScore:
    """Attributes:
    name: which score. mean: over the pairs. values: float64 `[N]`, each pair's. saturated: the share of pairs whose
      cosine was negative, so that they count as 0.
    """

    name: str
    mean: float
    values: np.ndarray
    saturated: float


def clip_score(
    clip: Clip, images: np.ndarray, texts: Sequence[str], scale: float = 100.0, prefix: str = "", batch: int = 64
) -> ClipScore:
    """scale max(cos(image, text), 0) of each of N images with its text (Hessel et al. 2021, Eq. 1).

    Args:
      images: uint8 `[N, H, W, C]`. texts: as many.
      scale: 100, as text-to-image papers report, or 2.5, as Hessel et al. have it.
      prefix: before each text; Hessel et al. have "A photo depicts ".

    Raises:
      UserError: for unequal numbers, or another scale.
    """
    if isinstance(texts, str) or len(texts) != len(images):
        count = "one text" if isinstance(texts, str) else f"{len(texts)} texts"
        raise UserError(f"The CLIP score needs a text for each image, not {len(images)} images and {count}.")
    if scale not in (100.0, 2.5):
        raise UserError(f"The CLIP score has a scale of 100 or 2.5, not {scale}: others compare with no paper's.")
    image = clip(images, batch).features
    text = clip.embed_texts([prefix + text for text in texts], batch)
    cosine = cosines(image, text)
    values = scale * np.maximum(cosine, 0.0)
    return ClipScore(f"{scale:g} max(cos, 0), {clip.model}", float(values.mean()), values, float((cosine < 0).mean()))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine, float64 `[N]`, of each row of `[N, D]` with the same row of another."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
