"""The uses of a run of SinGAN with a user's files: what each reads, draws and writes."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxgen.arrays import Array, to_uint8
from jaxgen.data.images import upright_size
from jaxgen.data.transforms import to_float
from jaxgen.editing.single_image import uses
from jaxgen.errors import UserError
from jaxgen.files import read_json, regular_file, write_json
from jaxgen.files.pictures import open_image
from jaxgen.methods.base import Model
from jaxgen.methods.gans.singan import SinGAN
from jaxgen.report.images import animation, grid, save_gif, save_png, to_rgb
from jaxgen.runs.state import seed_key
from jaxgen.sampling.inputs import read_inputs
from jaxgen.sampling.restore import restore_run
from jaxgen.sampling.slots import BEGUN, FREE, Slot
from jaxgen.sizes import check_fits

Size = tuple[int, int]
Files = Sequence[epath.Path]
PER_PIXEL = 4 * 4 * 128  # bytes of activations at a pixel: four layers of at most 128 channels, at once
RADII = {"harmonise": 7 / 250, "edit": 20 / 250}  # by which masks are widened, in longer sides; the authors' values
FRAME = 100  # milliseconds of an animation's frame
CAPTIONS = {
    "samples": "New images with the patches of the one picture that the model learned.",
    "super_resolution": "The picture enlarged by repeated pixels, and by the finest generator.",
    "paint": "A painting, and what the generator makes of it from each scale on.",
    "style": "A photo, and the same with the picture's texture, from each scale on.",
    "harmonise": "A pasted object, its mask, and the same made to fit the picture, from each scale on.",
    "edit": "A picture that was changed by hand, its mask, and the same made consistent, from each scale on.",
    "animation": "Walks through the noise of the scales, which begin at the picture.",
}


@dataclasses.dataclass(frozen=True)
class SinglePicture:
    """Holds a trained model of one picture, and where results are written."""

    method: SinGAN
    model: Model
    picture: np.ndarray  # uint8 [1, H, W, C], what it learned from
    out: epath.Path
    seed: int = 0

    def keys(self, num: int) -> Array:
        """Returns a random key for each of `num` images; image i depends on the seed and on i alone."""
        root = seed_key(jnp.uint32(self.seed), "single image")
        return jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(num))

    def drawn(self, use: Callable[..., Array], *arrays: Array) -> np.ndarray:
        """Returns what a function of (model, *arrays) draws, as uint8."""
        return jax.device_get(jax.jit(lambda model, *given: to_uint8(use(model, *given)))(self.model, *arrays))


def open_run(workdir: epath.PathLike, out: epath.PathLike, seed: int = 0, trust: Sequence[str] = ()) -> SinglePicture:
    """Returns the newest checkpoint of a run of SinGAN.

    Raises:
      UserError: there is no such run, it is of another method, or it has not begun all of its scales.
    """
    trained = restore_run(workdir, trust)
    method, generator = trained.generator.method, trained.generator
    config = generator.config
    if not isinstance(method, SinGAN):
        raise UserError(
            f"{workdir} is a run of {config.method.name!r}, and these are the uses of a model of one picture: name a "
            "run of singan."
        )
    if trained.model.stage < method.scales - 1:
        raise UserError(
            f"{workdir} has begun {trained.model.stage + 1} of the {method.scales} scales of its picture; train it to "
            f"its end, at {method.scales * method.images_per_scale} images."
        )
    picture = np.asarray(generator.source(config.data.split).take([0])["image"])
    model = jax.device_put(trained.model, jax.devices()[0])
    return SinglePicture(method, model, picture, epath.Path(out), seed)


def samples(run: SinglePicture, num: int, size: Size | None, start: int) -> np.ndarray:
    """Draws `num` new images, [num, H, W, C]."""
    if size is not None:
        _check_memory(run, size, min(num, uses.AT_ONCE), "--size")
    sampler = dataclasses.replace(run.method.sampler, size=size, start=start)
    method = dataclasses.replace(run.method, sampler=sampler)
    batches = [run.keys(num)[i : i + uses.AT_ONCE] for i in range(0, num, uses.AT_ONCE)]
    found = np.concatenate([run.drawn(lambda model, keys: method.sample(model, keys, {}), keys) for keys in batches])
    _write(run, "samples", found, [f"sample_{i + 1}" for i in range(num)], ())
    save_png(run.out / "panel_samples.png", grid(found))
    return found


def super_resolution(run: SinglePicture, images: Files, factor: float) -> list[np.ndarray]:
    """Enlarges each image, or the picture where there is none; returns an image [1, H, W, C] of each."""
    if not 1 < factor <= 16:
        raise UserError(f"--factor={factor:g}: give a number above 1, up to 16.")
    results: list[np.ndarray] = []
    _check_names(images)
    for file in images or [None]:
        image = run.picture if file is None else _read(run, {"image": file}, _own_size(file))[BEGUN]
        sides = tuple(round(side * factor) for side in image.shape[1:3])
        _check_memory(run, (sides[0], sides[1]), 1, "--factor")
        given = jnp.asarray(to_float({"image": image})["image"])
        found = run.drawn(
            lambda model, keys, image: uses.super_resolve(run.method, model, keys, image, factor), run.keys(1), given
        )
        panel, name = name_of("super_resolution", file, images), "picture" if file is None else file.stem
        _write(run, panel, found, [f"{name}_{factor:g}x"], images)
        save_png(run.out / f"panel_{panel}.png", grid(np.concatenate([_near(image, sides), found]), 2))
        results.append(found)
    return results


def injected(run: SinglePicture, use: str, images: Files, scales: Sequence[int], num: int) -> list[np.ndarray]:
    """Draws each image anew from each scale on; `use` is "paint" or "style". Returns [scales num, H, W, C] of each."""
    return _from_scales(run, use, images, None, scales, num, 0)


def blended(
    run: SinglePicture, use: str, images: Files, mask: epath.Path, scales: Sequence[int], num: int, radius: int | None
) -> list[np.ndarray]:
    """Draws the part of each image where a mask is white; `use` is "harmonise" or "edit"."""
    longest = max(run.picture.shape[1:3])
    return _from_scales(run, use, images, mask, scales, num, round(RADII[use] * longest) if radius is None else radius)


def animated(run: SinglePicture, num: int, frames: int, start: int, alpha: float, beta: float) -> np.ndarray:
    """Draws `num` walks, [frames, num, H, W, C]."""
    _check_scale(run, start, "--start", 0)
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value <= 1:
            raise UserError(f"--{name}={value:g}: give a number from 0 to 1.")
    found = np.stack(
        [
            run.drawn(lambda model, key: uses.animate(run.method, model, key, frames, start, alpha, beta), key)
            for key in run.keys(num)
        ],
        axis=1,
    )
    save_gif(run.out / "animation.gif", animation(found), ms=FRAME)
    _caption(run, "animation")
    return found


def _from_scales(
    run: SinglePicture, use: str, images: Files, mask: epath.Path | None, scales: Sequence[int], num: int, radius: int
) -> list[np.ndarray]:
    for scale in scales:
        _check_scale(run, scale, "--scale", 1)
    chosen, results = list(scales) or list(range(1, run.method.scales)), []
    if not chosen:
        raise UserError("this model has one scale only, and an image is given to a scale above the coarsest.")
    names = [f"scale_{scale}" + (f"_{i + 1}" if num > 1 else "") for scale in chosen for i in range(num)]
    _check_names(images)
    for file in images:
        size = _fitted(run, _own_size(file))
        given = {"image": file} | ({} if mask is None else {"mask": mask})
        rows = _read(run, given, size)
        image = jnp.repeat(to_float({"image": rows[BEGUN]})["image"], num, axis=0)
        free = jnp.repeat(jnp.float32(rows[FREE])[..., None], num, axis=0) if mask is not None else None
        parts = []
        for scale in chosen:
            use_at = _use(run.method, size, scale, radius)
            parts.append(run.drawn(use_at, run.keys(num), image, *(() if free is None else (free,))))
        found = np.concatenate(parts)
        _write(run, name_of(use, file, images), found, [f"{file.stem}_{name}" for name in names], images)
        masks = [] if mask is None else [(rows[FREE] * 255).astype(np.uint8)[..., None]]
        cells = [to_rgb(part) for part in (rows[BEGUN], *masks, found)]
        save_png(run.out / f"panel_{name_of(use, file, images)}.png", grid(np.concatenate(cells)))
        results.append(found)
    return results


def _use(method: SinGAN, size: Size, scale: int, radius: int) -> Callable[..., Array]:
    def drawn(model: Model, keys: Array, image: Array, *mask: Array) -> Array:
        if not mask:
            return uses.inject(method, model, keys, image, size, scale)
        return uses.blend(method, model, keys, image, mask[0], size, scale, radius)

    return drawn


def _check_scale(run: SinglePicture, scale: int, flag: str, least: int) -> None:
    if not least <= scale < run.method.scales:
        raise UserError(
            f"{flag}={scale}: this model has {run.method.scales} scales, and {flag} is from {least} to "
            f"{run.method.scales - 1}."
        )


def _check_memory(run: SinglePicture, size: Size, count: int, flag: str) -> None:
    what = f"{flag}: {count} at a time of {size[0]}x{size[1]} pixels"
    check_fits(count * math.prod(size) * PER_PIXEL, what, "lower it")


def _own_size(file: epath.Path) -> Size:
    """Returns the height and width of a picture's file."""
    with open_image(regular_file(file, "--image").read_bytes(), repr(str(file))) as image:
        return upright_size(image, repr(str(file)))


def _fitted(run: SinglePicture, size: Size) -> Size:
    """Returns a size of the same aspect whose longer side is that of the model's picture."""
    share = max(run.method.image_shape[:2]) / max(size)
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _read(run: SinglePicture, files: dict[str, epath.Path], size: Size) -> dict[str, np.ndarray]:
    """Returns `{entry: [1, H, W, ...]}` of files, at a size."""
    channels = run.method.image_shape[2]
    slots = {"image": Slot(BEGUN, (*size, channels)), "mask": Slot(FREE, size, "mask")}
    return read_inputs({k: [v] for k, v in files.items()}, {k: slots[k] for k in files}, 1).rows


def name_of(use: str, file: epath.Path | None, images: Files) -> str:
    """Returns the name of the panel of one of several images."""
    return use if file is None or len(images) == 1 else f"{use}_{file.stem}"


def _check_names(images: Files) -> None:
    """Raises a UserError where the results of two images would have one name."""
    stems = [file.stem for file in images]
    twice = next((file for i, file in enumerate(images) if stems.index(file.stem) < i), None)
    if twice is not None:
        other = images[stems.index(twice.stem)]
        raise UserError(f"--image: the results of {other} and {twice} would have one name; rename one of them.")


def _near(images: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Returns images of another size, by repeated pixels."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, images.shape[1:3], strict=True))
    return images[:, rows][:, :, columns]


def _write(run: SinglePicture, panel: str, images: np.ndarray, names: Sequence[str], inputs: Files) -> None:
    """Writes `images/<name>.png` and the caption of the panel.

    Raises:
      UserError: an image would take the place of one that was given.
    """
    for name in names:
        path = run.out / "images" / f"{name}.png"
        if path.exists() and any(os.path.realpath(path) == os.path.realpath(file) for file in inputs):
            raise UserError(f"--out={run.out}: the image would take the place of {path}; name another folder.")
    for name, image in zip(names, images, strict=True):
        save_png(run.out / "images" / f"{name}.png", grid(image[None], pad=0, scale=1))
    _caption(run, panel)


def _caption(run: SinglePicture, panel: str) -> None:
    path, use = run.out / "captions.json", next(use for use in CAPTIONS if panel.startswith(use))
    write_json(path, {**(read_json(path) if path.exists() else {}), panel: CAPTIONS[use]})
