"""LPIPS between images, and how varied the images of a group are by it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxgen.errors import UserError
from jaxgen.interop.lpips import load_lpips
from jaxgen.metrics.features import Extractor, digest
from jaxgen.networks.pretrained.lpips import LPIPS, check_size, layers_of

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]  # uint8 images [N, H, W, C] twice -> [N]


class Lpips:
    """LPIPS version 0.1 (Zhang et al. 2018) of uint8 images, over all devices.

    Attributes:
      trunk: "alex", which its authors report, or "vgg".
      name: "lpips_alex" or "lpips_vgg".
    """

    def __init__(self, trunk: str = "alex", weights: str = "", params: dict[str, Any] | None = None):
        """Args:
          weights: a folder that holds the published files, see `jaxgen.interop.lpips.PUBLISHED`; by default they are
            found, or fetched, as `jaxgen.downloads.locate` says.
          params: the network's, instead of published ones.

        Raises:
          UserError: for an unknown trunk, and files that cannot be had or are others.
        """
        layers_of(trunk)
        self.trunk, self.name = trunk, f"lpips_{trunk}"
        self._params = load_lpips(trunk, weights) if params is None else params
        network = LPIPS(trunk)

        def features(params: Any, images: jax.Array) -> tuple[jax.Array, ...]:
            return network.apply({"params": params}, images.astype(np.float32) / 127.5 - 1, method="features")

        def pairs(params: Any, images: jax.Array) -> jax.Array:
            both = features(params, images.reshape(-1, *images.shape[2:]))
            first, second = ([x[i::2] for x in both] for i in (0, 1))
            return network.apply({"params": params}, first, second, method="compare")

        def to_references(given: tuple[Any, Any], images: jax.Array) -> jax.Array:
            params, references = given
            found = features(params, images)
            one = functools.partial(network.apply, {"params": params}, found, method="compare")
            return jax.lax.map(one, references).T  # [B, K]

        self._features, self._to_references = features, to_references
        self._pairs = Extractor(pairs, self._params)

    @functools.cached_property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of its weights."""
        return digest(self._params)

    def __call__(self, a: np.ndarray, b: np.ndarray, batch: int = 32) -> np.ndarray:
        """Distances, float64 `[N]`, of uint8 images `[N, H, W, C]`, C being 3, or 1 for grey.

        Raises:
          UserError: for images of unequal shapes, or that LPIPS does not see.
        """
        if a.shape != b.shape:
            raise UserError(f"LPIPS compares images one by one, so as many of one shape, not {a.shape} and {b.shape}.")
        a, b = self._rgb(a), self._rgb(b)
        parts = [self._pairs(np.stack([a[i : i + batch], b[i : i + batch]], 1), batch) for i in range(0, len(a), batch)]
        return np.concatenate(parts).astype(np.float64)

    def matrix(self, images: np.ndarray, references: np.ndarray, batch: int = 32) -> np.ndarray:
        """Distances, float64 `[N, K]`, of each of N images to each of K references, of one size.

        The references' features, about 2.6 MB each at 256x256 with "alex", stay on every device.

        Raises:
          UserError: as above.
        """
        if images.shape[1:] != references.shape[1:]:
            raise UserError(f"LPIPS compares images of one shape, not {images.shape[1:]} and {references.shape[1:]}.")
        images, references = self._rgb(images), self._rgb(references)
        known = Extractor(self._features, self._params)(references, batch)
        known = tuple(x[:, None] for x in known)  # each to be held against a whole batch
        return Extractor(self._to_references, (self._params, known))(images, batch).astype(np.float64)

    def _rgb(self, images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or not len(images):
            raise UserError(
                "LPIPS sees uint8 images [N, H, W, C], grey or RGB, at least one, "
                f"not {images.dtype} of shape {images.shape}."
            )
        check_size(self.trunk, *images.shape[1:3])
        return np.repeat(images, 3, -1) if images.shape[-1] == 1 else images


@dataclasses.dataclass(frozen=True)
class Diversity:
    """Attributes:
    mean: of the groups' means, each group counting alike. std: of those means.
    groups, means, sizes, pairs: of each group that has two images or more: its number, mean distance, images, and
      how many pairs that mean is of.
    images: of all groups. left_out: groups of fewer than two images.
    seed: of the pairs' draw.
    """

    mean: float
    std: float
    groups: tuple[int, ...]
    means: tuple[float, ...]
    sizes: tuple[int, ...]
    pairs: tuple[int, ...]
    images: int
    left_out: int
    seed: int


def nearest_reference(lpips: Lpips, images: np.ndarray, references: np.ndarray, batch: int = 32) -> np.ndarray:
    """The number, int `[N]`, of the reference that each image has the smallest LPIPS distance to.

    With the training images as references these are the groups of Ojha et al. (2021), Section 4, for
    `intra_set_diversity` of a generator that saw only few.
    """
    return lpips.matrix(images, references, batch).argmin(1)


def intra_set_diversity(
    distance: Distance, images: np.ndarray, groups: np.ndarray, pairs: int = 1000, seed: int = 0
) -> Diversity:
    """Mean distance between images of one group, averaged over groups: how varied what looks alike still is.

    A generator that repeats its training images scores near 0 where the groups are `nearest_reference`s (Ojha et al.
    2021, Section 4, intra-cluster LPIPS); with labels as groups it is the diversity within classes.

    Args:
      distance: such as an `Lpips`.
      images: uint8 `[N, H, W, C]`.
      groups: int `[N]`, each image's group or class.
      pairs: at most as many different pairs in each group, drawn at random; all of them where there are no more.

    Raises:
      UserError: where no group has two images, or for unequal numbers.
    """
    groups = np.asarray(groups)
    if groups.shape != (len(images),) or pairs < 1:
        raise UserError(
            f"Diversity needs a group for each of {len(images)} images and at least one pair, "
            f"not groups of shape {groups.shape} and {pairs} pairs."
        )
    first, second, kept, left_out = [], [], [], 0
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        if len(members) < 2:
            left_out += 1
            continue
        # a group's draw is its own, so that it does not depend on which others there are
        chance = np.random.default_rng([seed, int(group) % 2**32])
        low, high = _pairs(len(members), pairs, chance)
        first.append(members[low])
        second.append(members[high])
        kept.append((int(group), len(members), len(low)))
    if not kept:
        raise UserError(f"None of the {left_out} groups has two images, so there is no diversity within any.")
    found = distance(images[np.concatenate(first)], images[np.concatenate(second)])
    numbers, sizes, counts = zip(*kept, strict=True)
    means = [float(np.mean(part)) for part in np.split(found, np.cumsum(counts)[:-1])]
    return Diversity(
        mean=float(np.mean(means)),
        std=float(np.std(means)),
        groups=numbers,
        means=tuple(means),
        sizes=sizes,
        pairs=counts,
        images=len(images),
        left_out=left_out,
        seed=seed,
    )


def _pairs(count: int, most: int, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Different pairs low < high of `count` things: all of them, or `most`, each as likely."""
    total = count * (count - 1) // 2
    number = np.arange(total) if total <= most else np.sort(chance.choice(total, most, replace=False))
    # pair number n is (low, high) with n = high (high - 1) / 2 + low
    high = np.floor((1 + np.sqrt(1 + 8 * number.astype(np.float64))) / 2).astype(np.int64)
    return number - high * (high - 1) // 2, high
