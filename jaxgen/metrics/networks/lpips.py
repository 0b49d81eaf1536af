"""Computes LPIPS as a function of pairs of uint8 images.

It is no feature network: its features are compared layer by layer.
"""

from __future__ import annotations

import functools

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxgen.arrays import Tree
from jaxgen.errors import UserError
from jaxgen.interop.feature_networks.lpips import load_lpips
from jaxgen.metrics.networks.base import digest
from jaxgen.metrics.networks.extractor import Extractor
from jaxgen.networks.layers.stateless import apply_params
from jaxgen.networks.pretrained.lpips import LPIPS, check_size, layers_of


class Lpips:
    """Computes LPIPS version 0.1 (Zhang et al. 2018) of uint8 images, over all devices.

    Attributes:
      trunk: "alex", which its authors report, or "vgg".
      name: "lpips_alex" or "lpips_vgg".
    """

    def __init__(self, trunk: str = "alex", weights: str = "", params: Tree | None = None):
        """Args:
          weights: a folder that holds the published files, see `jaxgen.interop.feature_networks.lpips`; by default they
            are found, or fetched, as `jaxgen.downloads.locate` says.
          params: the network's, instead of published ones.

        Raises:
          UserError: for an unknown trunk, and files that cannot be had or are others.
        """
        layers_of(trunk)
        self.trunk, self.name = trunk, f"lpips_{trunk}"
        self._params = load_lpips(trunk, weights) if params is None else params
        network = LPIPS(trunk)

        def features(params: Tree, images: jax.Array) -> tuple[jax.Array, ...]:
            return apply_params(network, params, images.astype(np.float32) / 127.5 - 1, method="features")

        def pairs(params: Tree, images: jax.Array) -> jax.Array:
            both = features(params, images.reshape(-1, *images.shape[2:]))
            first, second = ([x[i::2] for x in both] for i in (0, 1))
            return apply_params(network, params, first, second, method="compare")

        def to_references(given: tuple[Tree, Tree], images: jax.Array) -> jax.Array:
            params, references = given
            found = features(params, images)
            one = functools.partial(apply_params, network, params, found, method="compare")
            return jax.lax.map(one, references).T  # [B, K]

        def inside(params: Tree, images: jax.Array) -> jax.Array:
            both = features(params, images[:, :2].reshape(-1, *images.shape[2:]))
            first, second = ([x[i::2] for x in both] for i in (0, 1))
            region = images[:, 2, ..., 0].astype(np.float32)
            return apply_params(network, params, first, second, region, method="compare")

        self._inside = Extractor(inside, self._params)
        self._features, self._to_references = features, to_references
        self._pairs = Extractor(pairs, self._params)

    @functools.cached_property
    def digest(self) -> str:
        """Returns the first 16 hexadecimal digits of the SHA-256 of its weights."""
        return digest(self._params)

    def __call__(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], batch: int = 32
    ) -> Float[np.ndarray, " N"]:
        """Returns distances, float64 `[N]`, of uint8 images `[N, H, W, C]`, C being 3, or 1 for grey.

        Raises:
          UserError: for images of unequal shapes, or that LPIPS does not see.
        """
        if a.shape != b.shape:
            raise UserError(f"LPIPS compares images one by one, so as many of one shape, not {a.shape} and {b.shape}.")
        a, b = self._rgb(a), self._rgb(b)
        parts = [self._pairs(np.stack([a[i : i + batch], b[i : i + batch]], 1), batch) for i in range(0, len(a), batch)]
        return np.concatenate(parts).astype(np.float64)

    def inside(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], region: Bool[np.ndarray, "N H W"],
        batch: int = 32,
    ) -> Float[np.ndarray, " N"]:  # fmt: skip
        """Returns distances, float64 `[N]`, of a region of each pair; NaN where it is empty. Raises as above."""
        where = np.repeat(region[..., None].astype(np.uint8), 3, -1)
        return self._inside(np.stack([self._rgb(a), self._rgb(b), where], 1), batch).astype(np.float64)

    def matrix(
        self, images: UInt8[np.ndarray, "N H W C"], references: UInt8[np.ndarray, "K H W C"], batch: int = 32
    ) -> Float[np.ndarray, "N K"]:
        """Returns distances, float64 `[N, K]`, of each of N images to each of K references, of one size.

        The references' features, about 2.6 MB each at 256x256 with "alex", stay on every device.

        Raises:
          UserError: as above.
        """
        if images.shape[1:] != references.shape[1:]:
            raise UserError(f"LPIPS compares images of one shape, not {images.shape[1:]} and {references.shape[1:]}.")
        images, references = self._rgb(images), self._rgb(references)
        known = Extractor(self._features, self._params)(references, batch)
        known = tuple(x[:, None] for x in known)  # each is compared with a batch
        return Extractor(self._to_references, (self._params, known))(images, batch).astype(np.float64)

    def _rgb(self, images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
            raise UserError(
                "LPIPS sees uint8 images [N, H, W, C], grey or RGB, at least one, "
                f"not {images.dtype} of shape {images.shape}."
            )
        check_size(self.trunk, *images.shape[1:3])
        return np.repeat(images, 3, -1) if images.shape[-1] == 1 else images
