"""The latent spaces of a trained StyleGAN: path lengths, truncation, swapped layers, and which space holds a picture.

    python main.py --config=configs/stylegan2_shapes.py --workdir=runs/stylegan2_shapes
    python -m studies.style_space --workdir=runs/stylegan2_shapes --out=style_space.jsonl --picture=style_space.png

Rows, each with its `kind`:

    path length   the mean perceptual path length in Z and in W, in the features of --network (Karras et al. 2019)
    truncation    the variance of a value over images, by psi
    swap          the share of pairs of images of unlike labels in which taking over the other's coarse half of layers,
                  or its fine half, changes the label: shape, colour and place as read from the pixels of shapes, or
                  the class that --classifier sees
    embedding     PSNR and feature distance of held-out images, and of images of random w, after they were embedded in
                  Z, W and W+; the noise inputs are those of the images, and are not searched
    edit          held-out images, embedded in W and in W+, are moved along one direction of W, that of warmth (how much
                  redder than blue an image is), until they have changed by so many standard deviations of random
                  images: how far are they then from before, in the features of their brightness alone? `W keeps` is
                  the share of pictures whose edit in W is nearer

Each row is appended to --out, and the same command goes on where it stopped. The picture has held-out images in its
first line, and what their codes in Z, W and W+ are painted as in the others.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arrays import to_uint8
from jaxgen.data.transforms import to_float
from jaxgen.editing.style_space.directions import Boundary, boundary
from jaxgen.editing.style_space.edits import mix
from jaxgen.editing.style_space.embedding import RECIPES, SPACES, Embedded, embed
from jaxgen.editing.style_space.model import StyleModel
from jaxgen.editing.style_space.path_length import path_lengths
from jaxgen.errors import UserError
from jaxgen.metrics.analysis.shape_attributes import read_attributes
from jaxgen.metrics.networks.perceptual_loss import PerceptualLoss, open_perceptual
from jaxgen.metrics.networks.trained import TrainedClassifier
from jaxgen.metrics.pairs.pixels import psnr
from jaxgen.report.images import grid, save_png
from studies import harness

PSI = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
CHANGES = (0.5, 1.0, 1.5)  # of an edit, in standard deviations of the warmth of random images
AMOUNTS = np.linspace(0, 6, 25)  # of an edit, in deviations of styles along the direction
AT_ONCE = 50
SHOWN = 8

Reader = Callable[[np.ndarray], dict[str, np.ndarray]]  # uint8 images to {attribute: labels}


def of_shapes(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the labels of each attribute, read from the pixels of uint8 images."""
    return dict(zip(("shape", "colour", "position"), read_attributes(images).T, strict=True))


def warmth(images: np.ndarray) -> np.ndarray:
    """Returns how much redder than blue uint8 images [N, H, W, 3] are, in [-1, 1]; 0 where they are black."""
    red, green, blue = np.moveaxis(images.astype(np.float64), -1, 0).sum(axis=(2, 3))
    return (red - blue) / np.maximum(red + green + blue, 1.0)


def brightness(images: np.ndarray) -> np.ndarray:
    """Returns uint8 images whose channels are all the largest one, in which a hue does not show."""
    return np.repeat(images.max(axis=-1, keepdims=True), images.shape[-1], axis=-1)


def at_change(changes: np.ndarray, distances: np.ndarray, change: float) -> float:
    """Returns the distance at which an edit has first changed its picture so much, between the two amounts around it.

    Args:
      changes, distances: [A] of growing amounts, from no edit on; NaN is returned if none reaches the change.
    """
    reached = np.flatnonzero(changes >= change)
    if not len(reached):
        return float("nan")
    end = reached[0]
    if end == 0:
        return float(distances[0])
    share = (change - changes[end - 1]) / (changes[end] - changes[end - 1])
    return float(distances[end - 1] + share * (distances[end] - distances[end - 1]))


@dataclasses.dataclass
class Spaces:
    """Holds a generator, the loss that images are compared in, and how many images are looked at."""

    model: StyleModel
    loss: PerceptualLoss
    num: int

    def __post_init__(self) -> None:
        self._paint = jax.jit(lambda model, w, keys: to_uint8(jnp.clip(model.paint(w, keys), -1, 1)))
        self._styles = jax.jit(lambda model, keys: model.broadcast(model.mapping(model.draw_z(keys))))
        self._lengths = jax.jit(path_lengths, static_argnames="space")
        self._embed = jax.jit(embed, static_argnames="settings")
        self._distance = jax.jit(lambda loss, a, b: loss(a, b))

    def keys(self, seed: int) -> jax.Array:
        return jax.random.split(jax.random.key(seed), self.num)

    def styles(self, seed: int) -> np.ndarray:
        """Returns random styles [num, L, D]."""
        return np.asarray(self._styles(self.model, self.keys(seed)))

    def paint(self, styles: np.ndarray) -> np.ndarray:
        """Returns uint8 images of styles; image i has the same noise at each call."""
        keys, parts = self.keys(0)[: len(styles)], range(0, len(styles), AT_ONCE)
        return np.concatenate(
            [np.asarray(self._paint(self.model, styles[i : i + AT_ONCE], keys[i : i + AT_ONCE])) for i in parts]
        )

    def path_length(self, space: str) -> dict[str, float]:
        keys = self.keys(1)
        parts = [
            np.asarray(self._lengths(self.model, keys[i : i + AT_ONCE], self.loss, space=space))
            for i in range(0, self.num, AT_ONCE)
        ]
        found = np.concatenate(parts)
        return rounded(mean=found.mean(), error=found.std() / len(found) ** 0.5, median=np.median(found))

    def truncation(self, psi: float) -> dict[str, float]:
        """Returns the mean over values of the variance over images, in [-1, 1]."""
        mean = np.asarray(jax.jit(lambda model: model.spread().mean)(self.model))
        images = self.paint(mean + psi * (self.styles(2) - mean)) / 127.5 - 1
        return rounded(variance=images.var(axis=0).mean())

    def swap(self, layer: int, read: Reader) -> dict[str, float]:
        """Returns, for each attribute, the shares of swaps that change it, and how many pairs differ in it."""
        a, b = self.styles(3), self.styles(4)
        of_a, of_b = read(self.paint(a)), read(self.paint(b))
        of_coarse, of_fine = (read(self.paint(np.asarray(mix(x, y, layer)))) for x, y in ((b, a), (a, b)))
        found: dict[str, float] = {}
        for name in of_a:
            differ = of_a[name] != of_b[name]
            found[f"pairs ({name})"] = int(differ.sum())
            for half, labels in (("coarse", of_coarse), ("fine", of_fine)):
                changed = (labels[name] != of_a[name])[differ]
                found[f"{half} ({name})"] = round(float(changed.mean()), 4) if len(changed) else float("nan")
        return found

    def embedded(self, images: np.ndarray, space: str, steps: int) -> Embedded:
        """Returns the codes of uint8 images; the noise is that of `paint`."""
        settings = dataclasses.replace(RECIPES["projector"], space=space, steps=steps, noise="fixed")
        given, keys = to_float({"image": images})["image"], self.keys(0)[: len(images)]
        return self._embed(self.model, given, keys, self.loss, settings=settings)

    def embedding(self, images: np.ndarray, space: str, steps: int) -> tuple[dict[str, float], Embedded]:
        """Returns the numbers of uint8 images that are embedded, and their codes."""
        found = self.embedded(images, space, steps)
        levels = np.minimum(psnr(images, np.asarray(to_uint8(found.images))), 99.0)  # of an exact copy it is infinite
        distance = self._distance(self.loss, to_float({"image": images})["image"], found.images)
        return rounded(psnr=levels.mean(), least=levels.min(), feature_distance=distance.mean()), found

    def edit(self, codes: Mapping[str, np.ndarray]) -> Iterator[dict[str, float]]:
        """Yields the numbers of edits of each change, made in several spaces.

        Args:
          codes: {space: styles [N, L, D]} of the same pictures.
        """
        styles = self.styles(6)
        seen = warmth(self.paint(styles))
        found = boundary(styles[:, 0], seen > np.median(seen))
        moved = {space: self._moved(code, found, np.median(seen)) for space, code in codes.items()}
        for change in CHANGES:
            far = {
                space: np.array([at_change(*of, change * seen.std()) for of in zip(*both, strict=True)])
                for space, both in moved.items()
            }
            both = np.isfinite(list(far.values())).all(axis=0)
            means = {f"distance in {space}": d[both].mean() if both.any() else np.nan for space, d in far.items()}
            nearer = (far["w"] < far["w_plus"])[both].mean() if both.any() else np.nan
            yield {"change": change, "reached": int(both.sum()), **rounded(**means, **{"W keeps": nearer})}

    def _moved(self, code: np.ndarray, found: Boundary, middle: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns how much the warmth of pictures has changed, and how far their brightness is from before, [N, A].

        A picture is moved towards the other side of the middle.
        """
        start = self.paint(code)
        signs = np.where(warmth(start) < middle, 1.0, -1.0)
        changes, distances = [], []
        for amount in AMOUNTS * found.deviation:
            images = self.paint(code + (amount * signs)[:, None, None] * found.normal)
            changes.append(signs * (warmth(images) - warmth(start)))
            pair = (to_float({"image": brightness(x)})["image"] for x in (start, images))
            distances.append(np.asarray(self._distance(self.loss, *pair)))
        return np.stack(changes, 1), np.stack(distances, 1)


def rounded(**values: float) -> dict[str, float]:
    return {name: float(f"{float(value):.5g}") for name, value in values.items()}


def measured(
    spaces: Spaces, rows: harness.Rows, held_out: np.ndarray, read: Reader | None, steps: int
) -> dict[str, Embedded]:
    """Adds all rows; returns the held-out images' codes in each space, as far as they were made now."""
    for space in ("z", "w"):
        rows.get({"kind": "path length", "space": space}, lambda space=space: spaces.path_length(space))
    for psi in PSI:
        rows.get({"kind": "truncation", "psi": psi}, lambda psi=psi: spaces.truncation(psi))
    layer, drawn = spaces.model.network.layers // 2, {}
    if read is not None:
        rows.get({"kind": "swap", "layer": layer}, lambda: spaces.swap(layer, read))
    painted = spaces.paint(spaces.styles(5)[: len(held_out)])
    for name, images in (("held out", held_out), ("generated", painted)):
        for space in SPACES:
            key = {"kind": "embedding", "images": name, "space": space, "steps": steps, "count": len(images)}
            if not rows.where(**key):
                numbers, again = spaces.embedding(images, space, steps)
                rows.add({**key, **numbers})
                drawn |= {space: again} if name == "held out" else {}
    key = {"kind": "edit", "steps": steps, "count": len(held_out)}
    if held_out.shape[-1] == 3 and not rows.where(**key):
        for space in ("w", "w_plus"):
            drawn[space] = drawn[space] if space in drawn else spaces.embedded(held_out, space, steps)
        for numbers in spaces.edit({space: np.asarray(drawn[space].styles) for space in ("w", "w_plus")}):
            rows.add({**key, **numbers})
    return drawn


def main(
    workdir: Annotated[str, "a run of stylegan2, of a generator that is told no class"],
    out: Path,
    num: Annotated[int, "images, or pairs of them, of a row"] = 500,
    pictures: Annotated[int, "images that are embedded"] = 16,
    steps: Annotated[int, "of an embedding"] = 1000,
    network: Annotated[str, "whose features are compared: filters, classifier, lpips_alex, lpips_vgg"] = "filters",
    weights: Annotated[str, "its weights"] = "",
    classifier: Annotated[str, "a file of export_classifier, whose classes are the labels"] = "",
    picture: Annotated[str, "the PNG to write"] = "",
) -> None:
    if not 1 <= pictures <= num:
        raise UserError(f"--pictures={pictures} is from 1 to --num={num}.")
    harness.prepare()
    trained = harness.trained(workdir)
    model = StyleModel.of(trained.generator.method, jax.device_put(trained.model, jax.devices()[0]))
    shape, source = model.network.image_shape, trained.generator.source("test")
    read: Reader | None = None
    if classifier:
        judge = TrainedClassifier(classifier)
        judge.check_shape(shape)
        read = lambda images: {"class": judge(images).probabilities.argmax(axis=1)}  # noqa: E731
    elif trained.generator.config.data.source == "caption_shapes":
        read = of_shapes
    held_out = source.take(range(pictures))["image"]
    spaces = Spaces(model, open_perceptual(network, shape, weights), num)
    drawn = measured(spaces, rows := harness.Rows(out, num=num, network=network), held_out, read, steps)
    lengths = {row["space"]: row["mean"] for row in rows.where(kind="path length")}
    print(f"path length in W over that in Z: {lengths['w'] / lengths['z']:.3f}")
    found = [[row[k] for k in ("images", "space", "psnr", "least", "feature_distance")]
             for row in rows.where(kind="embedding", steps=steps)]  # fmt: skip
    print(harness.table(["images", "space", "PSNR (dB)", "least", "feature distance"], found))
    edits = [[row[k] for k in ("change", "reached", "distance in w", "distance in w_plus", "W keeps")]
             for row in rows.where(kind="edit", steps=steps)]  # fmt: skip
    if edits:
        print(harness.table(["change", "pictures", "distance in W", "in W+", "W keeps"], edits))
    if picture:
        for space in SPACES:
            if space not in drawn:
                drawn[space] = spaces.embedded(held_out, space, steps)
        shown = [held_out[:SHOWN], *(np.asarray(to_uint8(drawn[space].images))[:SHOWN] for space in SPACES)]
        save_png(Path(picture), grid(np.concatenate(shown), columns=len(shown[0])))


if __name__ == "__main__":
    sys.exit(harness.run(main))
