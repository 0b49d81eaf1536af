"""The uses of a style-based generator with a user's pictures: what each reads, draws and writes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxgen.arrays import Array, to_uint8
from jaxgen.data.transforms import to_float
from jaxgen.editing.style_space import edits
from jaxgen.editing.style_space.codes import Codes, Directions, read_codes, read_directions, write_codes
from jaxgen.editing.style_space.codes import write_directions as _write_directions
from jaxgen.editing.style_space.directions import boundary, principal
from jaxgen.editing.style_space.embedding import Embedding, embed
from jaxgen.editing.style_space.model import StyleModel
from jaxgen.errors import UserError
from jaxgen.files import read_json, write_json
from jaxgen.metrics.networks.perceptual_loss import PerceptualLoss
from jaxgen.metrics.networks.trained import TrainedClassifier
from jaxgen.metrics.pairs.pixels import psnr
from jaxgen.report.images import animation, grid, save_gif, save_png
from jaxgen.runs.state import seed_key
from jaxgen.sampling.inputs import Inputs, read_inputs
from jaxgen.sampling.slots import BEGUN, begun_slots

log = logging.getLogger(__name__)

Files = Sequence[epath.Path]
AT_ONCE = 16  # images that are painted, or embedded, together
SHOWN = 7  # images in a row of the panel of directions
CAPTIONS = {
    "embed": "Pictures, the image of the mean of w, where the search begins, and the images of their codes.",
    "morph": "On the straight line between the codes of one picture and the next.",
    "mix": "Each row's coarse layers with each column's fine ones.",
    "directions": "One image, moved along each direction in W by -3 to 3 deviations.",
    "edit": "The codes of pictures, moved along a direction.",
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Holds a generator, where results are written, and the seed of what is drawn."""

    model: StyleModel
    out: epath.Path
    seed: int = 0

    def keys(self, num: int) -> Array:
        """Returns a random key for each of `num` images; image i depends on the seed and on i alone."""
        root = seed_key(jnp.uint32(self.seed), "style space")
        return jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(num))

    def paint(self, styles: Array | np.ndarray, noise: Sequence[Array | np.ndarray] = ()) -> np.ndarray:
        """Returns uint8 images [N, H, W, C] of styles [N, L, D] and noise maps [N, h, w, 1], if there are any."""
        parts, count = [], min(AT_ONCE, len(styles))
        for start in range(0, len(styles), count):
            part = [np.asarray(x[start : start + count]) for x in (styles, *noise)]
            size = len(part[0])
            padded = [np.pad(x, ((0, count - size), *((0, 0) for _ in x.shape[1:]))) for x in part]
            parts.append(np.asarray(_painted(self.model, padded[0], tuple(padded[1:]) or None))[:size])
        return np.concatenate(parts)

    def write(self, use: str, images: Mapping[str, np.ndarray], panel: np.ndarray) -> None:
        """Writes `images/<name>.png`, `panel_<use>.png` and its caption."""
        for name, image in images.items():
            save_png(self.out / "images" / f"{name}.png", grid(image[None], pad=0, scale=1))
        save_png(self.out / f"panel_{use}.png", panel)
        path = self.out / "captions.json"
        write_json(path, {**(read_json(path) if path.exists() else {}), use: CAPTIONS[use]})


@jax.jit
def _painted(model: StyleModel, styles: Array, noise: tuple[Array, ...] | None) -> Array:
    return to_uint8(jnp.clip(model.paint(styles, noise), -1, 1))


def embedded(
    place: Place, pictures: Inputs, loss: PerceptualLoss, settings: Sequence[Embedding]
) -> dict[str, dict[str, dict[str, float]]]:
    """Embeds pictures, once for each of the settings, whose spaces differ; returns `{space: {picture: numbers}}`.

    Of each picture it writes the input, what its code is painted as, and its code; the numbers are the PSNR in dB, the
    distance in the loss's features, and how far the noise maps are from white noise.
    """
    given = pictures.rows[BEGUN]
    names, keys = pictures.names(len(given)), place.keys(len(given))
    images = {f"{name}_input": image for name, image in zip(names, given, strict=True)}
    run = jax.jit(embed, static_argnames="settings")
    count = min(AT_ONCE, len(given))
    mean = jax.jit(lambda model: model.broadcast(model.spread().mean[None]))(place.model)
    columns = [given, np.repeat(place.paint(mean), len(given), axis=0)]
    numbers: dict[str, dict[str, dict[str, float]]] = {}
    for each in settings:
        parts = []
        for at in range(0, len(given), count):
            part = np.arange(at, at + count) % len(given)
            found = run(place.model, to_float({"image": given[part]})["image"], keys[part], loss, settings=each)
            parts.append(jax.device_get(found))
        found = jax.tree.map(lambda *x: np.concatenate(x)[: len(given)], *[x.replace(history={}) for x in parts])
        codes = Codes(tuple(names), found.styles, found.noise or (), found.z)
        write_codes(place.out / f"codes_{each.space}.npz", codes)
        last = {k: np.concatenate([x.history[k][-1] for x in parts]) for k in parts[0].history}
        again = np.asarray(to_uint8(jnp.asarray(found.images)))
        columns.append(again)
        told = {"psnr": psnr(given, again), "feature_distance": last["perceptual"], "whiteness": last["whiteness"]}
        numbers[each.space] = {
            name: {key: float(values[i]) for key, values in told.items()} for i, name in enumerate(names)
        }
        images |= {f"{name}_{each.space}": image for name, image in zip(names, again, strict=True)}
    place.write("embed", images, grid(np.stack(columns, 1).reshape(-1, *given.shape[1:]), columns=len(columns)))
    write_json(place.out / "embed.json", {"_meta": {"seed": place.seed}, **numbers})
    return numbers


def read_pictures(files: Files, model: StyleModel) -> Inputs:
    """Returns pictures, cropped in the centre and resized to the generator's size, which is told in one line.

    Raises:
      UserError: a picture cannot be read.
    """
    return read_inputs({"image": files}, {"image": begun_slots(model.network.image_shape)["image"]}, len(files))


def morphed(place: Place, codes: epath.PathLike, frames: int) -> np.ndarray:
    """Draws what lies between each picture and the next, [frames, N - 1, H, W, C].

    Raises:
      UserError: there is one picture only.
    """
    found = read_codes(codes, place.model)
    if len(found.names) < 2:
        raise UserError(f"--codes={codes} has one picture only, and a morph joins two: embed several in one call.")
    styles, maps = jnp.asarray(found.styles), [jnp.asarray(x) for x in found.noise]
    before, after = (tuple(x[part] for x in maps) or None for part in (slice(None, -1), slice(1, None)))
    walk = edits.morph(styles[:-1], styles[1:], frames)
    images = _frames(place, walk, edits.morph_noise(before, after, frames) or ())
    save_gif(place.out / "morph.gif", animation(images), ms=300)
    place.write("morph", {}, _rows(images))
    return images


def mixed(place: Place, codes: epath.PathLike, layer: int | None) -> np.ndarray:
    """Draws each picture's coarse layers with each picture's fine ones, [N, N, H, W, C]; the noise is the row's.

    Raises:
      UserError: there is no such layer.
    """
    found, layers = read_codes(codes, place.model), place.model.network.layers
    layer = layers // 2 if layer is None else layer
    if not 1 <= layer < layers:
        raise UserError(f"--layer={layer}: the first fine layer of this generator is from 1 to {layers - 1}.")
    count, styles = len(found.names), jnp.asarray(found.styles)
    met = edits.mix(styles[:, None], styles[None], layer).reshape(-1, *styles.shape[1:])
    images = place.paint(met, [np.repeat(x, count, axis=0) for x in found.noise])
    names = [f"{a}_with_{b}" for a in found.names for b in found.names]
    place.write("mix", dict(zip(names, images, strict=True)), grid(images, columns=count))
    return images.reshape(count, count, *images.shape[1:])


def directions(place: Place, num: int, components: int, classifier: TrainedClassifier | None) -> dict[str, float]:
    """Finds directions in W, of `num` random z; returns the accuracy of each class's hyperplane on styles left out.

    A class that too few or too many of the images show has none: a warning and `left_out` in the file say so.

    Raises:
      UserError: there are more components than numbers in w, or the classifier sees other images.
    """
    keys = place.keys(num)
    w = np.asarray(jax.jit(lambda model, keys: model.mapping(model.draw_z(keys)))(place.model, keys))
    found = principal(w, components)
    names = [f"component_{i + 1}" for i in range(components)]
    vectors, deviations = [*found.vectors], [*found.deviations]
    accuracies: dict[str, float] = {}
    left_out: dict[str, str] = {}
    if classifier is not None:
        classifier.check_shape(place.model.network.image_shape)
        images = place.paint(np.repeat(w[:, None], place.model.network.layers, axis=1))
        seen = classifier(images).probabilities
        assert seen is not None
        for number, shown in enumerate((seen.argmax(axis=1)[:, None] == np.arange(seen.shape[1])).T):
            try:
                side = boundary(w, shown)
            except UserError as error:  # too rare, or all of them: there is no hyperplane
                left_out[f"class_{number}"] = str(error)
                log.warning("class_%d has no direction: %s Draw more by --num.", number, error)
                continue
            names.append(f"class_{number}")
            vectors.append(side.normal)
            deviations.append(np.float64(side.deviation))
            accuracies[names[-1]] = side.accuracy
    kept = Directions(tuple(names), np.stack(vectors).astype(np.float32), np.stack(deviations).astype(np.float32))
    _write_directions(place.out / "directions.npz", kept)
    base = jnp.broadcast_to(w[:1, None], (1, place.model.network.layers, w.shape[1]))
    amounts = jnp.linspace(-3.0, 3.0, SHOWN)
    rows = [edits.move(base, v, d * amounts)[:, 0] for v, d in zip(kept.vectors, kept.deviations, strict=True)]
    place.write("directions", {}, grid(place.paint(jnp.concatenate(rows)), columns=SHOWN))
    about = {"_meta": {"seed": place.seed, "num": num}, "accuracy": accuracies, "left_out": left_out}
    write_json(place.out / "directions.json", {**about, "explained": (found.deviations**2 / w.var(0).sum()).tolist()})
    return accuracies


@dataclasses.dataclass(frozen=True)
class Change:
    """Says which direction `edited` moves along, and how far.

    Attributes:
      directions, direction: a file of directions and the name of one in it; or "".
      before, after: the names of two embedded pictures, whose difference is the direction; or "".
      most: how far: from minus to plus so many deviations, or from 0 to so many differences.
      layers: (first, end) of the layers that are moved; None moves all.
      frames: how many images.

    Raises:
      UserError: neither or both of the two ways are asked for, in part or in whole.
    """

    directions: str = ""
    direction: str = ""
    before: str = ""
    after: str = ""
    most: float = 3.0
    layers: tuple[int, int] | None = None
    frames: int = 7

    def __post_init__(self) -> None:
        ways = bool(self.directions), bool(self.before)
        whole = bool(self.directions) == bool(self.direction) and bool(self.before) == bool(self.after)
        if sum(ways) != 1 or not whole:
            raise UserError(
                "An edit follows --directions with --direction, or how two pictures differ, --before and --after."
            )
        if not (np.isfinite(self.most) and self.most):
            raise UserError(f"--most={self.most:g}: give a number that is not 0.")


def edited(place: Place, codes: epath.PathLike, change: Change) -> np.ndarray:
    """Draws each picture moved along a direction, [frames, N, H, W, C].

    Raises:
      UserError: there is no such direction, picture or layer.
    """
    found, layers = read_codes(codes, place.model), place.model.network.layers
    first, end = change.layers or (0, layers)
    if not 0 <= first < end <= layers:
        raise UserError(f"--layers={first}:{end}: give two numbers that rise, from 0 to this generator's {layers}.")
    if change.directions:
        known = read_directions(change.directions, place.model)
        if change.direction not in known.names:
            raise UserError(f"--direction={change.direction}: the file has {', '.join(known.names)}.")
        number = known.names.index(change.direction)
        vector, name, least = known.vectors[number] * known.deviations[number], change.direction, -change.most
    else:
        a, b = found.index(change.before, "--before"), found.index(change.after, "--after")
        vector, name, least = found.styles[b] - found.styles[a], f"{change.before}_to_{change.after}", 0.0
    amounts = jnp.linspace(least, change.most, change.frames)
    moved = edits.move(jnp.asarray(found.styles), jnp.asarray(vector), amounts, (first, end))
    noise = [jnp.broadcast_to(x, (change.frames, *x.shape)) for x in found.noise]
    images = _frames(place, moved, noise)
    last = {f"{of}_{name}": image for of, image in zip(found.names, images[-1], strict=True)}
    save_gif(place.out / "edit.gif", animation(images), ms=300)
    place.write("edit", last, _rows(images))
    return images


def _frames(place: Place, styles: Array, noise: Sequence[Array]) -> np.ndarray:
    """Returns the images of styles [F, N, L, D], [F, N, H, W, C]."""
    flat = [x.reshape(-1, *x.shape[2:]) for x in (styles, *noise)]
    images = place.paint(flat[0], flat[1:])
    return images.reshape(*styles.shape[:2], *images.shape[1:])


def _rows(images: np.ndarray) -> np.ndarray:
    """Returns a grid with a row for each picture and a column for each frame."""
    turned = images.swapaxes(0, 1)
    return grid(turned.reshape(-1, *turned.shape[2:]), columns=len(images))
