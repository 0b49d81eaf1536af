"""Makes what a batch gains from its own images: low resolution, grey, edges, JPEG, holes. Pure JAX, to be called under
jit.

A `Corruption` makes a picture, such as a small or a damaged copy, from an image and a random key. The config names it
under the entry that the picture becomes: `config.data.corruptions.condition = section(name="low_resolution")`.
Training, sampling and evaluation compute the same function, so that a model is asked for what it has learned from.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arrays import Array, Entries
from jaxgen.errors import UserError, nearest

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Key

    Image = Float[Array, "H W C"]
    Mask = Int[Array, "H W"]

# ITU-R BT.601: the luminance of red, green and blue.
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
# ITU-T T.81, Annex K: the quantisation of luminance and of chrominance at quality 50.
_TABLES = np.array([
    [[16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
     [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
     [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]],
    [[17, 18, 24, 47, 99, 99, 99, 99], [18, 21, 26, 66, 99, 99, 99, 99], [24, 26, 56, 99, 99, 99, 99, 99],
     [47, 66, 99, 99, 99, 99, 99, 99], *[[99] * 8] * 4],
], np.float32)  # fmt: skip


class Corrupted(NamedTuple):
    """Holds what a corruption makes of an image.

    Attributes:
      picture: float32 `[h, w, c]` in [-1, 1].
      mask: int32 `[H, W]`, 1 where the image is unknown and to be drawn, 0 where it is kept; None if the whole image is
        to be drawn.
    """

    picture: Image
    mask: Mask | None = None


class Corruption:
    """This is the contract: a corruption is a pure function of a random key and one image.

    Derive a frozen dataclass from this class.
    """

    def __call__(self, key: Key[Array, ""], image: Image) -> Corrupted:
        """Returns the corrupted copy of an image `[H, W, C]` in [-1, 1]."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class LowResolution(Corruption):
    """Makes a smaller copy, `[H / factor, W / factor, C]`.

    Raises:
      UserError: the factor is less than 2, or does not divide the image's sides.
    """

    factor: int = 4
    # "area" takes the mean of factor x factor pixels; "bicubic" (Keys 1981, a = -1/2) and "bilinear" are widened by the
    # factor, against aliasing.
    filter: Literal["area", "bicubic", "bilinear"] = "area"

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise UserError(f"A low resolution has a factor of 2 or more, not {self.factor}.")

    def __call__(self, key: Key[Array, ""], image: Image) -> Corrupted:
        height, width, channels = image.shape
        if height % self.factor or width % self.factor:
            raise UserError(
                f"Images of {height}x{width} pixels are not divided by low_resolution's factor {self.factor}; "
                "change the factor or config.data.resolution."
            )
        small = height // self.factor, width // self.factor
        if self.filter == "area":
            blocks = image.reshape(small[0], self.factor, small[1], self.factor, channels)
            return Corrupted(blocks.mean((1, 3)))
        kernel = {"bicubic": "cubic", "bilinear": "linear"}[self.filter]
        return Corrupted(jnp.clip(jax.image.resize(image, (*small, channels), kernel), -1, 1))


@dataclasses.dataclass(frozen=True)
class Grey(Corruption):
    """Returns the luminance of an RGB image (ITU-R BT.601), `[H, W, 1]`.

    Raises:
      UserError: the images have not three channels.
    """

    def __call__(self, key: Key[Array, ""], image: Image) -> Corrupted:
        if image.shape[-1] != 3:
            raise UserError(f"Images are made grey from 3 channels, not {image.shape[-1]}; set config.data.channels=3.")
        return Corrupted(luminance(image))


@dataclasses.dataclass(frozen=True)
class Edges(Corruption):
    """Returns the outlines of an image, `[H, W, 1]`: the length of Sobel's gradient of the luminance.

    The gradient of a step from black to white has length 1. Borders are continued by their outermost pixels.

    Raises:
      UserError: the threshold is negative.
    """

    threshold: float = 0.1  # 1 where the gradient is at least this long and -1 elsewhere; 0 gives 2 length - 1, clipped

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise UserError(f"The threshold of edges must not be negative, as {self.threshold} is.")

    def __call__(self, key: Key[Array, ""], image: Image) -> Corrupted:
        grey = (luminance(image) if image.shape[-1] == 3 else image.mean(-1, keepdims=True))[..., 0]
        padded = jnp.pad((grey + 1) / 2, 1, mode="edge")
        rows, columns = (_smoothed_difference(padded, axis) for axis in (0, 1))
        length = jnp.sqrt(rows**2 + columns**2) / 4
        picture = jnp.where(length >= self.threshold, 1.0, -1.0) if self.threshold else jnp.clip(2 * length - 1, -1, 1)
        return Corrupted(picture[..., None])


def _smoothed_difference(padded: Array, axis: int) -> Array:
    """Applies Sobel's filter along an axis of an image padded by one pixel: [-1, 0, 1], and [1, 2, 1] across it."""
    moved = jnp.moveaxis(padded, axis, 0)
    difference = moved[2:] - moved[:-2]
    return jnp.moveaxis(difference[:, :-2] + 2 * difference[:, 1:-1] + difference[:, 2:], 0, axis)


@dataclasses.dataclass(frozen=True)
class Brightness(Corruption):
    """Returns where an image is light and where it is dark, `[H, W, 1]`: 1, -1, and 0 where it is neither.

    A ControlNet that reads it draws pictures whose light and dark parts are given in black and white, whatever their
    colours are. A QR code is such a hint: its light and dark modules are all that a reader looks at.

    Raises:
      UserError: the margin is not in [0, 1), or images are not of 1 or 3 channels.
    """

    # Light is what is above the image's mean luminance by more than the margin, of the way from black to white, and
    # dark what is below it by more. So a hint of black and white alone asks for twice the margin as contrast.
    margin: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise UserError(f"The margin of brightness lies in [0, 1), as {self.margin} does not.")

    def __call__(self, key: Key[Array, ""], image: Image) -> Corrupted:
        if image.shape[-1] not in (1, 3):
            raise UserError(f"Brightness is that of 1 or 3 channels, not {image.shape[-1]}; set config.data.channels.")
        grey = (luminance(image) if image.shape[-1] == 3 else image) / 2
        above = grey - grey.mean()
        return Corrupted(jnp.sign(above) * (jnp.abs(above) > self.margin))


@dataclasses.dataclass(frozen=True)
class JPEG(Corruption):
    """Makes a copy that was compressed by JPEG (ITU-T T.81) and decoded again, of the image's own shape.

    Colour is stored at half resolution (4:2:0), as most programs do, and brought back by linear interpolation. The
    quantisation is that of the reference library's `quality`.

    Raises:
      UserError: a quality outside of 1 to 100, or images of other than 1 or 3 channels.
    """

    quality: tuple[int, int] = (5, 30)  # each image's quality is drawn uniformly from these and the numbers between

    def __post_init__(self) -> None:
        low, high = self.quality
        if not 1 <= low <= high <= 100:
            raise UserError(f"JPEG's quality lies in 1 to 100, the lower first, and is not {self.quality}.")

    def __call__(self, key: Key[Array, ""], image: Image) -> Corrupted:
        height, width, channels = image.shape
        if channels not in (1, 3):
            raise UserError(f"JPEG has 1 or 3 channels, not {channels}; set config.data.channels.")
        quality = jax.random.randint(key, (), self.quality[0], self.quality[1] + 1)
        scale = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)
        tables = jnp.clip((_TABLES * scale + 50) // 100, 1, 255)
        size = 16 if channels == 3 else 8
        padded = jnp.pad(image, ((0, -height % size), (0, -width % size), (0, 0)), mode="edge")
        levels = jnp.round((padded + 1) * 127.5)
        decoded = _grey_jpeg(levels, tables[0]) if channels == 1 else _colour_jpeg(levels, tables)
        return Corrupted(jnp.clip(jnp.round(decoded), 0, 255)[:height, :width] / 127.5 - 1)


def _grey_jpeg(levels: Image, table: Array) -> Image:
    return _blocks_through(levels[..., 0], table)[..., None]


def _colour_jpeg(levels: Image, tables: Array) -> Image:
    """Takes RGB levels in 0..255 through YCbCr (JFIF), whose colour planes are halved."""
    height, width, _ = levels.shape
    luma = levels @ LUMINANCE
    blue, red = (0.5 * (levels[..., c] - luma) / (1 - LUMINANCE[c]) + 128 for c in (2, 0))
    halves = [jnp.round(c).reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for c in (blue, red)]
    luma = _blocks_through(jnp.round(luma), tables[0])
    blue, red = (
        jax.image.resize(_blocks_through(jnp.round(half), tables[1]), (height, width), "linear") - 128
        for half in halves
    )
    r, b = (luma + 2 * (1 - LUMINANCE[c]) * plane for c, plane in ((0, red), (2, blue)))
    g = (luma - LUMINANCE[0] * r - LUMINANCE[2] * b) / LUMINANCE[1]
    return jnp.stack([r, g, b], axis=-1)


def _blocks_through(plane: Float[Array, "H W"], table: Float[Array, "8 8"]) -> Float[Array, "H W"]:
    """Returns a plane of levels after the quantisation of its 8x8 blocks' cosine transform."""
    order, place = np.mgrid[:8, :8]
    cosines = np.where(order == 0, np.sqrt(1 / 8), np.cos(np.pi * (2 * place + 1) * order / 16) / 2).astype(np.float32)
    height, width = plane.shape
    blocks = (plane - 128).reshape(height // 8, 8, width // 8, 8)
    coefficients = jnp.einsum("ki,aibj,lj->akbl", cosines, blocks, cosines, precision="highest")
    kept = jnp.round(coefficients / table[:, None]) * table[:, None]
    decoded = jnp.einsum("ki,akbl,lj->aibj", cosines, kept, cosines, precision="highest")
    return jnp.clip(jnp.round(decoded.reshape(height, width) + 128), 0, 255)


@dataclasses.dataclass(frozen=True)
class Hole(Corruption):
    """Makes an image with an unknown part, which is 0 (mid-grey) in the picture and 1 in the mask.

    Raises:
      UserError: the share is not in (0, 1).
    """

    # "centre" is a rectangle in the middle; "box" is a rectangle anywhere, whose sides are drawn too; "half" is one of
    # the four halves, drawn at random; "free_form" is a set of strokes of a brush, in the manner of Yu et al. (2019),
    # "Free-form image inpainting with gated convolution".
    form: Literal["centre", "box", "half", "free_form"] = "free_form"
    # The rectangle's share of each side, and of "box" the greatest one, of which the least is half; the greatest width
    # of a stroke is a quarter of it.
    share: float = 0.5
    strokes: int = 4  # of the free form

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.strokes < 1:
            raise UserError(f"A hole has a share in (0, 1) and strokes, not {self.share} and {self.strokes}.")

    def __call__(self, key: Key[Array, ""], image: Image) -> Corrupted:
        forms = {"centre": self._centre, "box": self._box, "half": _half, "free_form": self._free_form}
        return _without(image, forms[self.form](key, image))

    def _centre(self, key: Array, image: Array) -> Array:
        y, x = _positions(image)
        return (jnp.abs(y - 0.5) < self.share / 2) & (jnp.abs(x - 0.5) < self.share / 2)

    def _box(self, key: Array, image: Array) -> Array:
        """Returns a rectangle that lies within the image."""
        of_sides, of_place = jax.random.split(key)
        sides = jax.random.uniform(of_sides, (2,), minval=self.share / 2, maxval=self.share)
        first = jax.random.uniform(of_place, (2,)) * (1 - sides)
        y, x = _positions(image)
        return (first[0] < y) & (y < first[0] + sides[0]) & (first[1] < x) & (x < first[1] + sides[1])

    def _free_form(self, key: Array, image: Array) -> Array:
        """Returns the pixels near the lines between random points; each stroke has four of them and its own width."""
        of_points, of_widths = jax.random.split(key)
        points = jax.random.uniform(of_points, (self.strokes, 4, 2))
        widths = jax.random.uniform(of_widths, (self.strokes, 1), minval=0.3, maxval=1.0) * self.share / 4
        start, along = points[:, :-1], jnp.diff(points, axis=1)
        pixels = jnp.stack(_positions(image), axis=-1)[:, :, None, None]
        at = ((pixels - start) * along).sum(-1) / jnp.maximum((along**2).sum(-1), 1e-9)
        nearest = start + jnp.clip(at, 0, 1)[..., None] * along
        return (jnp.linalg.norm(pixels - nearest, axis=-1) < widths / 2).any((2, 3))


@dataclasses.dataclass(frozen=True)
class Uncrop(Corruption):
    """Keeps only one half of an image (`sides="one"`), or a rectangle in its middle ("all").

    It is Palette's outpainting (Saharia et al. 2022, "Palette", Section 3): the picture goes on beyond what is known.

    Raises:
      UserError: the known share is not in (0, 1).
    """

    sides: Literal["one", "all"] = "one"
    known: float = 0.5  # the share of each side that is known where all four sides are to be drawn

    def __post_init__(self) -> None:
        if not 0 < self.known < 1:
            raise UserError(f"The known share of an uncropped image lies in (0, 1), as {self.known} does not.")

    def __call__(self, key: Key[Array, ""], image: Image) -> Corrupted:
        if self.sides == "one":
            return _without(image, _half(key, image))
        y, x = _positions(image)
        return _without(image, (jnp.abs(y - 0.5) > self.known / 2) | (jnp.abs(x - 0.5) > self.known / 2))


@dataclasses.dataclass(frozen=True)
class OneOf(Corruption):
    """Applies one corruption to each image, drawn at random, so that one model learns several tasks.

    Every picture is brought to the image's shape: a small one by linear interpolation, a grey one by repeating its
    channel. Where a corruption gives no mask, the whole image is unknown.

    Raises:
      UserError: there are no tasks, or `only` is none of them.
    """

    tasks: Mapping[str, Corruption]
    only: str = ""  # the one task that is done, as where a model of several is evaluated on one; "" draws one for each

    def __post_init__(self) -> None:
        if not self.tasks:
            raise UserError("one_of needs tasks, such as tasks=section(colour=section(name='grey')).")
        if self.only and self.only not in self.tasks:
            raise UserError(f"one_of has no task only={self.only!r}; {nearest(self.only, sorted(self.tasks))}")

    def __call__(self, key: Key[Array, ""], image: Image) -> Corrupted:
        of_task, of_corruption = jax.random.split(key)
        names = sorted(self.tasks)
        if self.only:
            return Corrupted(*self._as_image(self.tasks[self.only], of_corruption, image))
        chosen = jax.random.randint(of_task, (), 0, len(names))
        functions = [lambda key, image, name=name: self._as_image(self.tasks[name], key, image) for name in names]
        return Corrupted(*jax.lax.switch(chosen, functions, of_corruption, image))

    @staticmethod
    def _as_image(task: Corruption, key: Array, image: Array) -> tuple[Array, Array]:
        picture, mask = task(key, image)
        picture = jax.image.resize(picture, (*image.shape[:2], picture.shape[-1]), "linear")
        unknown = jnp.ones(image.shape[:2], jnp.int32) if mask is None else mask
        return jnp.broadcast_to(picture, image.shape), unknown


def leaves_nothing_known(corruption: Corruption, image_shape: tuple[int, ...]) -> bool:
    """Returns whether a corruption, or one of its tasks, changes the whole of an image `(H, W, C)`, without a mask.

    Raises:
      UserError: as the corruption does for such images.
    """
    if isinstance(corruption, OneOf):
        tasks = [corruption.tasks[corruption.only]] if corruption.only else list(corruption.tasks.values())
        return any(leaves_nothing_known(task, image_shape) for task in tasks)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(corruption, key, jax.ShapeDtypeStruct(image_shape, jnp.float32)).mask is None


def luminance(image: Float[Array, "*shape 3"]) -> Float[Array, "*shape 1"]:
    """Returns the luminance of RGB images (ITU-R BT.601)."""
    return (image * LUMINANCE).sum(-1, keepdims=True)


def _positions(image: Image) -> tuple[Array, Array]:
    """Returns the height and the width of each pixel's centre, `[H, W]` each, in (0, 1)."""
    height, width = image.shape[:2]
    y, x = (jnp.arange(height) + 0.5) / height, (jnp.arange(width) + 0.5) / width
    return jnp.broadcast_to(y[:, None], (height, width)), jnp.broadcast_to(x, (height, width))


def _half(key: Array, image: Array) -> Array:
    y, x = _positions(image)
    return jnp.stack([y < 0.5, y > 0.5, x < 0.5, x > 0.5])[jax.random.randint(key, (), 0, 4)]


def _without(image: Image, unknown: Array) -> Corrupted:
    return Corrupted(jnp.where(unknown[..., None], 0.0, image), unknown.astype(jnp.int32))


def corrupt(batch: Mapping[str, Array], keys: Key[Array, " B"], corruptions: Mapping[str, Corruption]) -> Entries:
    """Returns the batch with the entries that its images give; entries that are there already stay as they are.

    Args:
      batch: with `image`, float32 `[B, H, W, C]` in [-1, 1], unless nothing has to be made from it.
      keys: one random key for each image, so that its entries do not depend on its neighbours.
      corruptions: `{entry: corruption}`. The corruption's mask becomes the entry `mask`.

    Raises:
      UserError: two corruptions give a mask, or there is no image to make an entry from.
    """
    found = Entries(batch)
    keys = jax.vmap(lambda key: jax.random.fold_in(key, zlib.crc32(b"corruptions")))(keys)
    for name in sorted(corruptions):
        if name in batch:
            continue
        if "image" not in batch:
            raise UserError(f"config.data.corruptions.{name} makes {name!r} from images, of which there are none here.")
        number = zlib.crc32(name.encode())  # so that another entry does not change this one's keys
        of_entry = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys)
        picture, mask = jax.vmap(corruptions[name])(of_entry, batch["image"])
        found[name] = picture
        if mask is not None and "mask" in found.keys() - batch.keys():
            raise UserError("Two of config.data.corruptions give a mask; keep one, or join them by one_of.")
        if mask is not None:
            found.setdefault("mask", mask)
    return found


def entries_of(corruptions: Mapping[str, Corruption], image_shape: tuple[int, ...]) -> tuple[str, ...]:
    """Returns the sorted names of the entries that `shapes_of` describes.

    Raises:
      UserError: as the corruptions do for such images.
    """
    return tuple(sorted(shapes_of(corruptions, image_shape)))


def shapes_of(
    corruptions: Mapping[str, Corruption], image_shape: tuple[int, ...]
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Returns `{entry: (shape without the batch axis, dtype)}` of what corruptions make of images of shape `(H, W, C)`.

    Raises:
      UserError: as the corruptions do for such images.
    """

    def made(image: Array, key: Array) -> Entries:
        return corrupt({"image": image}, jnp.broadcast_to(key, 1), corruptions)

    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    found = jax.eval_shape(made, image, jax.eval_shape(lambda: jax.random.key(0))) if corruptions else {}
    return {name: (entry.shape[1:], entry.dtype) for name, entry in found.items() if name != "image"}
