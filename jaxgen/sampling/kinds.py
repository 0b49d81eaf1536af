"""What a method's `sample` may give, as `Method.gives` names it: images, videos, masks, embeddings or tokens.

Each is a class that says which arrays it takes, how they are stored and written, and which picture of them fits in a
log. `Method.gives` is the class's name in snake case, and `package.module:Class` for one of your own.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Bool, UInt8

from jaxgen.arrays import Array, to_uint8
from jaxgen.colours import class_colours
from jaxgen.errors import UserError
from jaxgen.registry import config_name, find
from jaxgen.report.images import animation, can_write_mp4, grid, save_gif, save_indices, save_mp4, save_png
from jaxgen.sampling.finite import finite_images, with_nan

log = logging.getLogger("jaxgen")

Shape = tuple[int, ...]
ANY = -1  # a size that is the method's to choose
STORED = ("images", "label", "labels", "prompts", "finite")  # arrays of samples.npz that are no further outputs
FRAMES = 8  # of a video in a still picture, at most


class Output(abc.ABC):
    """An output is an array with a row for each sample, `[B, ...]`.

    Attributes:
      plural: the word for several of them in sentences.
      key: the array's name in `samples.npz`; "" takes the name of the entry.
      numbers: "floating" or "integer", the type that `sample` gives.
      pictured: whether `picture` gives one.
      named: the folders of the files that `write_named` writes; () where it writes none.
    """

    plural: ClassVar[str]
    named: ClassVar[tuple[str, ...]] = ()
    key: ClassVar[str] = ""
    numbers: ClassVar[Literal["floating", "integer"]] = "floating"
    pictured: ClassVar[bool] = False

    @classmethod
    def entry(cls) -> str:
        """Returns the array's name in what `sample` returns, and in the batches that hold the true one."""
        return config_name(cls)

    @abc.abstractmethod
    def shape(self, image_shape: Shape) -> Shape:
        """Returns the shape of one sample of a method of such images; `ANY` stands for every size."""

    @property
    @abc.abstractmethod
    def values(self) -> str:
        """Returns what the numbers are, as in "floats in [-1, 1]"."""

    def stored(self, values: Array) -> Array:
        """Returns an array as it is stored; runs under jit."""
        return values.astype(jnp.float32)

    def picture(self, values: np.ndarray, finite: Bool[np.ndarray, " N"]) -> UInt8[np.ndarray, "H W 3"] | None:
        """Returns one picture of all stored values, for logs; None where there is nothing to see."""
        return None

    def write(self, folder: epath.Path, values: np.ndarray, finite: Bool[np.ndarray, " N"]) -> str:
        """Writes what a person looks at beside `samples.npz`; returns the name of the file to look at first."""
        return "samples.npz"

    def pictures(self, values: np.ndarray, finite: Bool[np.ndarray, " N"]) -> UInt8[np.ndarray, "N H W C"] | None:
        """Returns a picture of each sample, of the images' size; None where there is nothing to see."""
        return None

    def write_named(  # noqa: B027  # kinds without pictures write none
        self, folder: epath.Path, names: Sequence[str], values: np.ndarray, pictures: np.ndarray, given: np.ndarray
    ) -> None:
        """Writes a file for each sample, `<a folder of named>/<name>.png`.

        Args:
          names: of the N files, without their ending.
          values: the samples as they are stored, `[N, ...]`.
          pictures: what `pictures` gives.
          given: uint8 `[N, H, W, 3]`, the picture that each sample was made of.
        """


class Image(Output):
    """Images, float `[B, H, W, C]` in [-1, 1]; written as a grid, `samples.png`."""

    plural = "images"
    named = ("images",)
    key = "images"
    pictured = True
    values = "floats in [-1, 1]"

    def shape(self, image_shape: Shape) -> Shape:
        return image_shape

    def stored(self, values: Array) -> Array:
        return to_uint8(values)

    def picture(self, values: np.ndarray, finite: Bool[np.ndarray, " N"]) -> UInt8[np.ndarray, "H W 3"] | None:
        return grid(with_nan(values, finite))

    def write(self, folder: epath.Path, values: np.ndarray, finite: Bool[np.ndarray, " N"]) -> str:
        save_png(folder / "samples.png", grid(with_nan(values, finite)))
        return "samples.png"

    def pictures(self, values: np.ndarray, finite: Bool[np.ndarray, " N"]) -> UInt8[np.ndarray, "N H W C"] | None:
        return with_nan(values, finite)

    def write_named(
        self, folder: epath.Path, names: Sequence[str], values: np.ndarray, pictures: np.ndarray, given: np.ndarray
    ) -> None:
        for index, (name, picture) in enumerate(zip(names, pictures, strict=True)):
            save_png(folder / self.named[0] / f"{name}.png", picture, index)


class Mask(Output):
    """Masks, integers `[B, H, W]`, the class of each pixel; written as a grid of colours, `samples.png`.

    Of a user's pictures, `masks/<name>.png` has the classes as the indices of a palette, as `pairs:` and `folder:` read
    them, and `overlays/<name>.png` the picture in the colours of its classes.
    """

    plural = "masks"
    numbers = "integer"
    pictured = True
    values = "whole numbers in [0, 256)"
    named = ("masks", "overlays")

    def shape(self, image_shape: Shape) -> Shape:
        return image_shape[:2]

    def stored(self, values: Array) -> Array:
        return values.astype(jnp.int32)

    def picture(self, values: np.ndarray, finite: Bool[np.ndarray, " N"]) -> UInt8[np.ndarray, "H W 3"] | None:
        return grid(self.pictures(values, finite))

    def write(self, folder: epath.Path, values: np.ndarray, finite: Bool[np.ndarray, " N"]) -> str:
        save_png(folder / "samples.png", grid(self.pictures(values, finite)))
        return "samples.png"

    def pictures(self, values: np.ndarray, finite: Bool[np.ndarray, " N"]) -> UInt8[np.ndarray, "N H W C"]:
        return class_colours(256)[values % 256]

    def write_named(
        self, folder: epath.Path, names: Sequence[str], values: np.ndarray, pictures: np.ndarray, given: np.ndarray
    ) -> None:
        for index, (name, mask, picture, behind) in enumerate(zip(names, values, pictures, given, strict=True)):
            save_indices(folder / self.named[0] / f"{name}.png", mask.astype(np.uint8), class_colours(256), index)
            mixed = np.where(mask[..., None] > 0, (behind.astype(np.uint16) + picture + 1) // 2, behind)
            save_png(folder / self.named[1] / f"{name}.png", mixed.astype(np.uint8), index)


class Video(Output):
    """Videos, float `[B, F, H, W, C]` in [-1, 1]; written as an animated grid, `samples.gif`, and as
    `samples.mp4` where PyAV is installed."""

    plural = "videos"
    pictured = True
    values = "floats in [-1, 1]"

    def shape(self, image_shape: Shape) -> Shape:
        return (ANY, *image_shape)

    def stored(self, values: Array) -> Array:
        return to_uint8(values)

    def picture(self, values: np.ndarray, finite: Bool[np.ndarray, " N"]) -> UInt8[np.ndarray, "H W 3"] | None:
        """Returns a picture with a row for each video, of up to `FRAMES` of its frames."""
        shown = np.unique(np.linspace(0, values.shape[1] - 1, FRAMES).round().astype(int))
        frames = with_nan(values, finite)[:, shown]
        return grid(frames.reshape(-1, *frames.shape[2:]), columns=len(shown))

    def write(self, folder: epath.Path, values: np.ndarray, finite: Bool[np.ndarray, " N"]) -> str:
        frames = animation(with_nan(values, finite).swapaxes(0, 1))
        save_gif(folder / "samples.gif", frames)
        if can_write_mp4():
            save_mp4(folder / "samples.mp4", frames)
        else:
            log.info('samples.mp4 is not written, since PyAV is not installed: pip install "jaxgen[video]"')
        return "samples.gif"


class Embedding(Output):
    """Embeddings, float `[B, D]`; there is no picture of them."""

    plural = "embeddings"
    values = "floats"

    def shape(self, image_shape: Shape) -> Shape:
        return (ANY,)


class Tokens(Output):
    """Tokens, integers `[B, L]`; there is no picture of them."""

    plural = "rows of tokens"
    numbers = "integer"
    values = "integers"

    def shape(self, image_shape: Shape) -> Shape:
        return (ANY,)

    def stored(self, values: Array) -> Array:
        return values.astype(jnp.int32)


class Given(NamedTuple):
    """Holds what `sample` gave, in a program.

    Attributes:
      main: the array that `Method.gives` names, as it is stored.
      finite: bool `[B]`, which samples are finite in every array.
      more: the further arrays, `{name: [B, ...]}`.
    """

    main: Array
    finite: Array
    more: dict[str, Array]


def output_of(gives: str, method: str) -> Output:
    """Returns the output that a method's `gives` names. Raises a UserError for a name that none has."""
    return find("output", gives, f"{method}.gives")()


def read(found: Any, output: Output, count: int, shape: Shape, who: str) -> Given:
    """Returns what `sample` gave, after checking it; runs under jit, or as shapes.

    Args:
      found: an array `[B, ...]`, or a dict of arrays, one of which has the name of the output's entry.
      count: B.
      shape: of one sample; `ANY` stands for every size.
      who: the method, for messages.

    Raises:
      UserError: it is something else; the sentence says what, and what is needed.
    """
    entry = output.entry()
    arrays = dict(found) if isinstance(found, Mapping) else {entry: found}
    if entry not in arrays:
        has = ", ".join(map(repr, arrays)) or "nothing"
        raise UserError(
            f"{who} gives {output.plural}, so that what its sample returns needs the array {entry!r}, and it has "
            f"{has}: name it so, or set the method's gives."
        )
    main, wanted = arrays.pop(entry), (count, *shape)
    _check(main, output, wanted, who)
    for name, values in arrays.items():
        if name in STORED or name == output.key:
            raise UserError(f"{who} samples an array {name!r}, whose name samples.npz keeps for another; rename it.")
        size, dtype = getattr(values, "shape", ()), getattr(values, "dtype", None)
        if not size or size[0] != count or dtype is None or jnp.issubdtype(dtype, jnp.complexfloating):
            what = f"an array of shape {size} and type {dtype}" if dtype is not None else f"a {type(values).__name__}"
            raise UserError(f"{who} samples {what} as {name!r}, where a row of numbers for each of {count} is needed.")
    finite = finite_images(main)
    more = {name: _plain(values) for name, values in arrays.items()}
    for values in more.values():
        finite &= finite_images(values)
    return Given(output.stored(main), finite, more)


def _check(main: Any, output: Output, wanted: Shape, who: str) -> None:
    """Raises a UserError unless `main` is an array of the wanted shape and of the output's type."""
    shape, dtype = getattr(main, "shape", None), getattr(main, "dtype", np.dtype(object))
    if shape is None:
        found = f"a {type(main).__name__}"
    elif len(shape) != len(wanted) or any(b not in (ANY, a) for a, b in zip(shape, wanted, strict=True)) or 0 in shape:
        found = f"an array of shape {tuple(shape)}"
    elif not jnp.issubdtype(dtype, getattr(jnp, output.numbers)):
        found = f"numbers of type {dtype}"
    else:
        return
    sizes = ", ".join("any" if size == ANY else str(size) for size in wanted)
    raise UserError(
        f"{who} samples {found}, where {wanted[0]} {output.plural} of {output.values} and of shape ({sizes}) are "
        "needed: correct its sample, its sampler or its network."
    )


def _plain(values: Array) -> Array:
    """Returns a further output in a type that an archive holds: float32, int32, or uint8."""
    if jnp.issubdtype(values.dtype, jnp.floating):
        return values.astype(jnp.float32)
    return values if values.dtype == jnp.uint8 else values.astype(jnp.int32)
