"""Holds the Inception network of FID, KID, IS and precision/recall, with its published weights."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable
from typing import ClassVar

import jax
import numpy as np
import scipy.special
from jaxtyping import Float, UInt8

from jaxgen.arrays import Tree
from jaxgen.downloads import locate
from jaxgen.errors import UserError, nearest
from jaxgen.interop.feature_networks.inception import PUBLISHED, inception_params
from jaxgen.interop.torch_file import read
from jaxgen.metrics.networks import resize as resizes
from jaxgen.metrics.networks.base import FeatureNetwork, Features, digest
from jaxgen.metrics.networks.extractor import Extractor
from jaxgen.networks.layers.stateless import apply_params
from jaxgen.networks.pretrained import inception as network

RESIZES = ("legacy", "clean", "none")


@dataclasses.dataclass(frozen=True)
class Inception(FeatureNetwork):
    """Inception is the network of the published FID.

    Weights are read at the first use, and fetched if they are not on this machine.

    Attributes:
      weights: pytorch-fid's or torch-fidelity's file, or a folder that holds one of them; "" looks for them (`locate`).
      resize: "legacy" as the first FID, "clean" as clean-FID, both to 299 pixels a side; "none" leaves images as large
        as they are, which is for maps (SIFID).
      tap: the layer whose output is the features, a name in `jaxgen.networks.pretrained.inception.TAPS` that is no map.
      given: parameters of the network instead of published ones, for tests.

    Raises:
      UserError: for an unknown resize or tap.
    """

    weights: str | os.PathLike[str] = ""
    resize: str = "legacy"
    tap: str = "2048"
    given: Tree | None = dataclasses.field(default=None, repr=False, compare=False)
    name: ClassVar[str] = "inception"
    gives: ClassVar[frozenset[str]] = FeatureNetwork.gives | {"probabilities", "maps"}
    keeps_reference: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise UserError(f"Inception resizes by {', '.join(RESIZES)}, not {self.resize!r}.")
        _check_taps([self.tap])
        if self.tap.startswith("map_"):
            raise UserError(f"Inception's features are vectors; take the tap {self.tap!r} by Inception.taps.")

    @property
    def published(self) -> bool:
        """Returns whether weights, features (2048) and resize are published ones."""
        return self.given is None and self.tap == "2048" and self.resize in ("legacy", "clean")

    @property
    def width(self) -> int:
        """Returns the width of the tap."""
        return network.TAPS[self.tap].width

    @functools.cached_property
    def params(self) -> Tree:
        """Returns the network's parameters, NumPy float32."""
        return published_params(os.fspath(self.weights)) if self.given is None else self.given

    @functools.cached_property
    def digest(self) -> str:
        """Returns the first 16 hexadecimal digits of a SHA-256 over the parameters."""
        return digest(self.params)

    def __call__(self, images: UInt8[np.ndarray, "N H W C"], batch: int = 50) -> Features:
        """Returns features at the tap and, for the Inception score, class probabilities from the logits without bias.

        Args:
          images: uint8 `[N, H, W, C]`; grey ones (C = 1) are repeated to three channels.
          batch: images per program.

        Raises:
          UserError: for another type or number of channels, or no images.
        """
        return _features(self.taps(images, batch, (self.tap, "logits_unbiased")), self.tap)

    def taps(
        self, images: UInt8[np.ndarray, "N H W C"], batch: int = 50, names: Iterable[str] = ("2048",)
    ) -> dict[str, Float[np.ndarray, "N ..."]]:
        """Returns features at several taps, float32, by name; the network runs no further than the last of them.

        "map_64" and "map_192" are `[N, h, w, width]`. Arguments and errors otherwise as `__call__`.
        """
        names = _check_taps(names)
        images = colour(images)
        if self.resize != "clean":
            return self._extractor(names)(images, batch)
        # resized images are some hundred times as large as small ones: never all of them at once
        extract = self._extractor(names)
        parts = [extract(resizes.clean(images[i : i + batch]), batch) for i in range(0, len(images), batch)]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def maps(self, images: UInt8[np.ndarray, "N H W C"], batch: int = 50) -> Float[np.ndarray, "N h w 192"]:
        """Returns `[N, h, w, 192]` features before the second max pooling, of images at their own size, for SinGAN."""
        return self._unresized.taps(images, batch, ("map_192",))["map_192"]

    @functools.cached_property
    def _unresized(self) -> Inception:
        return dataclasses.replace(self, resize="none", given=self.params)

    def see_sizes(self, images: list[UInt8[np.ndarray, "H W C"]], batch: int = 50) -> Features:
        """Returns the features of images of any sizes; each is resized alone, so that no program is compiled twice."""
        if self.resize == "none":
            return super().see_sizes(images, batch)
        shrink = resizes.clean if self.resize == "clean" else _legacy
        resized = np.concatenate([np.asarray(shrink(colour(image[None]))) for image in images])
        found = self._resized(resized, batch)
        return _features(found, self.tap)

    @functools.cached_property
    def _resized(self) -> Extractor:
        """Returns the extractor for float images of the network's own size."""
        names = (self.tap, "logits_unbiased")

        def function(params: Tree, images: jax.Array) -> dict[str, jax.Array]:
            return apply_params(network.Inception(), params, resizes.centred(images), names)

        return Extractor(function, self.params)

    @functools.cached_property
    def _extractors(self) -> dict[tuple[str, ...], Extractor]:
        return {}

    def _extractor(self, names: tuple[str, ...]) -> Extractor:
        if names not in self._extractors:

            def function(params: Tree, images: jax.Array) -> dict[str, jax.Array]:
                x = resizes.legacy(images) if self.resize == "legacy" else images
                return apply_params(network.Inception(), params, resizes.centred(x), names)

            self._extractors[names] = Extractor(function, self.params)
        return self._extractors[names]


def _features(taps: dict[str, np.ndarray], tap: str) -> Features:
    return Features(taps[tap], scipy.special.softmax(taps["logits_unbiased"].astype(np.float64), axis=1))


@jax.jit
def _legacy(images: jax.Array) -> jax.Array:
    return resizes.legacy(images)


def colour(images: UInt8[np.ndarray, "N H W C"]) -> UInt8[np.ndarray, "N H W 3"]:
    """Returns uint8 `[N, H, W, 3]` from grey or colour images.

    Raises:
      UserError: for another type, number of axes or channels, or no images.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise UserError(f"Inception sees uint8 images [N, H, W, C], not {images.dtype} {images.shape}.")
    if images.shape[-1] == 4:
        raise UserError("Inception sees no alpha channel; put the images on a background first.")
    if images.shape[-1] not in (1, 3):
        raise UserError(f"Inception sees grey or RGB images, not {images.shape[-1]} channels.")
    return np.repeat(images, 3, -1) if images.shape[-1] == 1 else images


@functools.lru_cache(maxsize=1)
def published_params(path: str = "") -> Tree:
    """Returns the published parameters; `path` is as in `locate`."""
    return inception_params(read(locate(PUBLISHED, path)))


def _check_taps(names: Iterable[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in network.TAPS:
            raise UserError(f"Inception has no tap {name!r}; {nearest(name, network.TAPS)}")
    return names
