"""Do unCLIP's prior, decoder and edits do on captioned shapes what their paper says of them?

    python -m studies.unclip --prior=runs/unclip_prior_shapes --decoder=runs/unclip_decoder_shapes \\
        --clip=runs/clip_shapes --out=unclip.jsonl

Rows of a split say what is drawn of `num` held-out captions or images, and in what share of it shape, colour and place
are those wanted, read from pixels: the chain, its decoder with the true embedding, with a text alone and with an
embedding alone, and, as the control, the chain for the captions of others. `variations` have the shares in which a
picture's variations keep its attributes, and how far two of them are apart, in grey levels. `interpolation` has, by
frame, the shares with the attributes of the first and of the second picture; `text_difference` those with the new
colour, and with the shape and the place that a picture had. Prints one JSON line per row; with --pictures, a folder
gets a picture of each.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arrays import to_uint8
from jaxgen.data.sources.caption_shapes import NAMES, caption
from jaxgen.data.transforms import to_float
from jaxgen.editing.embeddings import ENTRY, Decoder, changed, interpolated, nulls
from jaxgen.editing.unclip import FRAMES
from jaxgen.methods.base import Model
from jaxgen.methods.contrastive.clip import CLIP
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.metrics.analysis.shape_attributes import agreement, read_attributes
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.restore import TrainedModel
from studies import harness

SPLITS = ("test", "unseen")


def draw(trained: TrainedModel, given: Mapping[str, np.ndarray], seed: int = 0) -> np.ndarray:
    """Returns what a run gives for these conditions, one sample for each row."""
    generator = trained.generator.changed(trained.generator.method, given)
    return generator.draw(trained.model, seed, len(next(iter(given.values())))).main


def shares(images: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Returns the shares of images with the wanted attributes, rounded."""
    return {key: round(value, 4) for key, value in dataclasses.asdict(agreement(images, wanted)).items()}


def captions_rows(
    rows: harness.Rows, prior: TrainedModel, decoder: TrainedModel, split: str, num: int
) -> dict[str, np.ndarray]:
    """Measures one split; returns the images of each row that was drawn now."""
    held = prior.generator.source(split).take(range(num))
    tokens, embedding, wanted = (held[name] for name in ("tokens", ENTRY, "attributes"))
    assert isinstance(decoder.generator.method, DDPM)
    no_text = np.repeat(np.asarray(nulls(decoder.generator.method)["tokens"]), num, axis=0)
    drawn: dict[str, np.ndarray] = {}

    def chain(tokens: np.ndarray) -> np.ndarray:
        return draw(decoder, {"tokens": tokens, ENTRY: draw(prior, {"tokens": tokens})})

    cases: dict[str, Callable[[], np.ndarray]] = {
        "prior, then decoder": lambda: chain(tokens),
        "decoder, true embedding and text": lambda: draw(decoder, {"tokens": tokens, ENTRY: embedding}),
        "decoder, true embedding alone": lambda: draw(decoder, {"tokens": no_text, ENTRY: embedding}),
        "decoder, prior's embedding alone": lambda: draw(
            decoder, {"tokens": no_text, ENTRY: draw(prior, {"tokens": tokens})}
        ),
        "decoder, text alone": lambda: draw(decoder, {"tokens": tokens, ENTRY: np.zeros_like(embedding)}),
        "prior, then decoder, captions of others": lambda: chain(np.roll(tokens, 1, axis=0)),
        "real images": lambda: held["image"],
    }
    for name, make in cases.items():

        def measure(name: str = name, make: Callable[[], np.ndarray] = make) -> dict[str, Any]:
            drawn[name] = make()
            return shares(drawn[name], wanted)

        rows.get({"split": split, "images": name}, measure)
    return drawn


class Edits:
    """Draws the three edits of the first pictures of a split, fifty at a time."""

    def __init__(self, decoder: TrainedModel, clip: TrainedModel, split: str, num: int, steps: int):
        assert isinstance(decoder.generator.method, DDPM)
        self.decoder, self.clip, self.steps = decoder, clip, steps
        self.method = decoder.generator.method
        self.held = decoder.generator.source(split).take(range(num))
        self.images = np.asarray(to_float({"image": self.held["image"]})["image"])
        self.embedding, self.attributes = self.held[ENTRY], self.held["attributes"]
        self.keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(2 * num))

    def run(self, what: Callable[..., jax.Array], *given: Any, axis: int = 0) -> np.ndarray:
        """Returns uint8 of `what(decoder, *given)`, of arrays whose rows are cut into parts of fifty."""
        told = nulls(self.method)

        @jax.jit
        def program(model: Model, given: tuple[jax.Array, ...]) -> jax.Array:
            return to_uint8(what(Decoder(self.method, model, told, self.steps), *given))

        count, parts = len(given[0]), []
        for start in range(0, count, 50):
            own = jax.tree.map(lambda x, start=start: x[start : start + 50], given)
            parts.append(np.asarray(program(self.decoder.model, own)))
        return np.concatenate(parts, axis=axis)

    def variations(self) -> np.ndarray:
        """Returns two of each picture, [2, N, H, W, C]."""
        num = len(self.images)
        both = [
            self.run(lambda decoder, z, keys: decoder.variations(z, keys), self.embedding, keys)
            for keys in (self.keys[:num], self.keys[num:])
        ]
        return np.stack(both)

    def interpolation(self) -> np.ndarray:
        """Returns frames between each picture and the next, [F, N, H, W, C]."""
        ends = [(x, np.roll(x, -1, axis=0)) for x in (self.images, self.embedding)]
        given = (*ends[0], *ends[1], self.keys[: len(self.images)])
        return self.run(lambda d, a, b, y, z, keys: interpolated(d, (a, b), (y, z), keys, FRAMES), *given, axis=1)

    def text_difference(self, after: np.ndarray, most: float) -> np.ndarray:
        """Returns frames on the way to other attributes, [F, N, H, W, C]."""
        method = self.clip.generator.method
        assert isinstance(method, CLIP)
        said = [[caption(row) for row in of] for of in (self.attributes, after)]
        tokens = [jnp.asarray(self.clip.generator.tokens_of(texts, "captions")) for texts in said]
        texts = [np.asarray(method.embed_text(self.clip.model.params, of)) for of in tokens]
        given = (self.images, self.embedding, *texts, self.keys[: len(self.images)])
        return self.run(lambda d, x, z, a, b, keys: changed(d, x, z, (a, b), keys, most, FRAMES), *given, axis=1)


def edit_rows(rows: harness.Rows, edits: Edits, most: float) -> dict[str, np.ndarray]:
    """Measures the edits; returns the images of each that was drawn now, [frames, N, H, W, C]."""
    drawn: dict[str, np.ndarray] = {}
    kept = edits.attributes
    other = np.roll(kept, -1, axis=0)
    turned = kept.copy()
    turned[:, 1] = (kept[:, 1] + 3) % len(NAMES["colour"])

    def variations() -> dict[str, Any]:
        drawn["variations"] = pair = edits.variations()
        apart = np.abs(pair[0].astype(float) - pair[1]).mean()
        away = np.abs(pair[0].astype(float) - edits.held["image"]).mean()
        return {**shares(pair[0], kept), "between": round(float(apart), 2), "from_picture": round(float(away), 2)}

    def interpolation() -> dict[str, Any]:
        drawn["interpolation"] = frames = edits.interpolation()
        seen = [read_attributes(frame) for frame in frames]
        return {name: by_frame(seen, of) for name, of in (("as_first", kept), ("as_second", other))}

    def text_difference() -> dict[str, Any]:
        drawn["text_difference"] = frames = edits.text_difference(turned, most)
        seen = [read_attributes(frame) for frame in frames]
        colour = [round(float((found[:, 1] == turned[:, 1]).mean()), 3) for found in seen]
        rest = [round(float((found[:, [0, 2]] == kept[:, [0, 2]]).all(axis=1).mean()), 3) for found in seen]
        return {"most": most, "new_colour": colour, "same_shape_and_place": rest}

    for make in (variations, interpolation, text_difference):
        rows.get({"edit": make.__name__}, make)
    return drawn


def by_frame(seen: list[np.ndarray], wanted: np.ndarray) -> dict[str, list[float]]:
    """Returns the share of pictures with each wanted attribute, by frame."""
    return {
        name: [round(float((found[:, i] == wanted[:, i]).mean()), 3) for found in seen] for i, name in enumerate(NAMES)
    }


def main(
    prior: Annotated[str, "a run of configs/unclip_prior_shapes.py"],
    decoder: Annotated[str, "a run of configs/unclip_decoder_shapes.py"],
    clip: Annotated[str, "the run of configs/clip_shapes.py that made their embeddings"],
    out: Annotated[Path, "file of the rows; a row that it has is not measured again"],
    num: Annotated[int, "captions of a row"] = 200,
    pairs: Annotated[int, "pictures that are edited"] = 100,
    steps: Annotated[int, "of DDIM, in edits"] = 30,
    most: Annotated[float, "share of the way of a text difference"] = 0.5,
    pictures: Annotated[str, "folder for pictures"] = "",
) -> None:
    harness.prepare()
    rows = harness.Rows(out, num=num, pairs=pairs, steps=steps)
    priors = harness.trained(prior, harness.run_config(prior, "prior"))
    decoders = harness.trained(decoder, harness.run_config(decoder, "ddpm"))
    clips = harness.trained(clip, harness.run_config(clip, "clip"))
    made: dict[str, np.ndarray] = {}
    for split in SPLITS:
        found = captions_rows(rows, priors, decoders, split, num)
        made |= {f"{split}_{re.sub(r'[^a-z]+', '_', name)}": images for name, images in found.items()}
    edits = Edits(decoders, clips, "test", pairs, steps)
    for name, frames in edit_rows(rows, edits, most).items():
        made[name] = np.concatenate([edits.held["image"][None, :8], frames[:, :8]])
    for name, images in made.items():
        if pictures:
            flat = images if images.ndim == 4 else images.reshape(-1, *images.shape[2:])
            Path(pictures).mkdir(parents=True, exist_ok=True)
            save_png(Path(pictures) / f"{name}.png", grid(flat[:128], columns=8))


if __name__ == "__main__":
    sys.exit(harness.run(main))
