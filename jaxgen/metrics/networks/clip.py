"""Sees images and texts with CLIP, whose embeddings are the features."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from jaxgen.arrays import Tree
from jaxgen.data.clip_tokenizer import ClipTokenizer
from jaxgen.data.word_tokenizer import WordTokenizer
from jaxgen.downloads import locate
from jaxgen.errors import UserError
from jaxgen.files import read_text
from jaxgen.interop.clip import load_clip, load_published, published
from jaxgen.interop.clip_towers import MEAN, STD, VOCABULARY, normalisation
from jaxgen.metrics.networks.base import FeatureNetwork, Features, digest
from jaxgen.metrics.networks.extractor import Extractor
from jaxgen.networks.layers.stateless import apply_params
from jaxgen.networks.pretrained.clip import CLIP

MODEL = "clip-vit-base-patch32"  # that of Hessel et al. (2021)


def crop_square(images: UInt8[np.ndarray, "N H W C"], size: int) -> UInt8[np.ndarray, "N size size 3"]:
    """Returns uint8 `[N, size, size, 3]` of uint8 images `[N, H, W, C]`, by CLIP's own resize.

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
            scaled = np.asarray(whole.resize((new[1], new[0]), Image.Resampling.BICUBIC)).reshape(*new, channels)
            target[:] = scaled[top : top + size, left : left + size]
        images = resized
    return np.repeat(images, 3, -1) if channels == 1 else images


class Clip(FeatureNetwork):
    """Gives CLIP's image embeddings as features, and the embeddings of texts.

    Weights are read at the first use, and fetched if they are not on this machine.

    Attributes:
      model: the published model's name, or the folder's.
    """

    name = "clip"
    keeps_reference = True

    def __init__(
        self,
        weights: str | os.PathLike[str] = "",
        model: str = MODEL,
        made: tuple[CLIP, Tree, ClipTokenizer] | None = None,
    ):
        """Args:
        weights: a folder as `CLIPModel.save_pretrained` and its tokenizer write; by default the published files
          of `model`, found or fetched as `jaxgen.downloads.locate` says.
        model: a name in `jaxgen.interop.clip.PUBLISHED`.
        made: network, parameters and tokenizer, instead of files.

        Raises:
          UserError: for an unknown model.
        """
        if not weights and made is None:
            published(model)
        self.model = pathlib.Path(weights).name if weights else model
        self._folder, self._made = weights, made

    @functools.cached_property
    def _loaded(self) -> tuple[CLIP, Tree]:
        """Returns network and parameters. Raises a UserError for files that cannot be had or are others."""
        if self._made is not None:
            return self._made[:2]
        return load_clip(self._folder) if self._folder else load_published(self.model)

    @property
    def network(self) -> CLIP:
        """Returns the network with its two towers. Raises a UserError for files that cannot be had or are others."""
        return self._loaded[0]

    @property
    def _params(self) -> Tree:
        return self._loaded[1]

    @property
    def resize(self) -> str:
        """Says in words how images come to the network's size."""
        return f"bicubic, shorter side to {self.network.image.size}, centre crop"

    @functools.cached_property
    def digest(self) -> str:
        """Returns the first 16 hexadecimal digits of the SHA-256 of its weights."""
        return digest(self._params)

    def see_sizes(self, images: list[UInt8[np.ndarray, "H W C"]], batch: int = 64) -> Features:
        """Returns the features of images of any sizes; each image comes to the network's size on its own."""
        return self(np.concatenate([crop_square(image[None], self.network.image.size) for image in images]), batch)

    @functools.cached_property
    def tokenizer(self) -> ClipTokenizer | WordTokenizer:
        """Returns the tokenizer of its texts. Raises UserError where the folder has none."""
        if self._made is not None:
            return self._made[2]
        words = pathlib.Path(self._folder) / VOCABULARY
        if self._folder and words.is_file():  # written by `jaxgen.sampling.export`
            return WordTokenizer.from_json(read_text(words), str(words))
        if self._folder:
            return ClipTokenizer.from_folder(self._folder)
        return ClipTokenizer.from_file(locate(published(self.model)["tokenizer"]))

    @functools.cached_property
    def _images(self) -> Extractor:
        mean, std = normalisation(self._folder) if self._folder else (MEAN, STD)

        def embed(params: Tree, images: jax.Array) -> jax.Array:
            normal = (images.astype(jnp.float32) / 255 - jnp.asarray(mean)) / jnp.asarray(std)
            return apply_params(self.network, params, normal, method="embed_image")

        return Extractor(embed, self._part("image"))

    @functools.cached_property
    def _texts(self) -> Extractor:
        def embed(params: Tree, tokens: jax.Array) -> jax.Array:
            return apply_params(self.network, params, tokens, method="embed_text")

        return Extractor(embed, self._part("text"))

    def _part(self, tower: str) -> Tree:
        """Returns the parameters that one tower's embedding takes."""
        return {name: self._params[name] for name in (tower, f"{tower}_projection", "logit_scale")}

    def __call__(self, images: UInt8[np.ndarray, "N H W C"], batch: int = 64) -> Features:
        """Returns image embeddings `[N, D]`, projected and not of unit length, of uint8 images `[N, H, W, C]`.

        Raises:
          UserError: for anything but uint8 images, grey or RGB.
        """
        size = self.network.image.size
        parts = [self._images(crop_square(images[i : i + batch], size), batch) for i in range(0, len(images), batch)]
        if not parts:
            raise UserError("CLIP was given no images.")
        return Features(np.concatenate(parts))

    def embed_texts(self, texts: Sequence[str], batch: int = 64) -> Float[np.ndarray, "N D"]:
        """Returns text embeddings `[N, D]`, projected and not of unit length; texts too long for CLIP are truncated.

        Raises:
          UserError: for a word that a vocabulary of whole words does not know.
        """
        tokenizer = self.tokenizer
        if isinstance(tokenizer, WordTokenizer):
            tokens = tokenizer(texts)
        else:
            tokens = tokenizer.tokenize(texts, self.network.text.length)
        return self._texts(tokens, batch)
