"""Draws images from a trained model: image i depends on the seed and on i, not on how many are drawn together."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxgen.arrays import Batch, Entries, Tree
from jaxgen.config import image_shape
from jaxgen.data import Source
from jaxgen.data.corruptions import corrupt, entries_of
from jaxgen.data.transforms import to_float, to_uint8
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model, check_limits
from jaxgen.parallel.distributed import gathered
from jaxgen.parallel.mesh import await_cpu, data_shards, make_mesh, over_data, place_full_batch, replicated
from jaxgen.parallel.sharding import Layout
from jaxgen.runs.progress import Steps
from jaxgen.runs.setup import extra_held_out, make_corruptions, open_split
from jaxgen.runs.state import seed_key
from jaxgen.sampling.finite import NotFinite, finite_images, panel_told, told, with_nan

log = logging.getLogger("jaxgen")

PANEL_IMAGES = 16  # how many images a run's panels are drawn for, or a few more

Conditions = dict[str, np.ndarray]  # {batch entry: [N, ...]}: what the method's functions read, on the host


@dataclasses.dataclass(frozen=True)
class Samples:
    """Holds what was drawn.

    Attributes:
      images: uint8 `[N, H, W, C]`. Those that are not finite hold no picture: `pictures` is for showing them all.
      labels: int32 `[N]` where the method is conditional on them, else None.
      finite: `[N]` which images are finite; not all of them are false.
      told: a sentence that says how many are not, and why; "" where all are finite.
    """

    images: np.ndarray
    labels: np.ndarray | None
    finite: np.ndarray
    told: str = ""

    @property
    def pictures(self) -> np.ndarray:
        """Returns `[N, H, W, C]` images as `jaxgen.report.images.grid` draws them; images that are not finite become
        magenta.
        """
        return with_nan(self.images, self.finite)

    def need_finite(self, use: str) -> Samples:
        """Returns these samples. Raises NotFinite unless all are finite; `use` says in a clause what cannot be done."""
        if self.told:
            raise NotFinite(f"{self.told.rstrip('.')}; {use}.")
        return self


class Generator:
    """Draws images from a method's models, in batches of one compiled shape that are split over the devices.

    The last batch is filled up to that shape, so that an image has the same bits for any number of images. Each program
    is compiled once.

    Args:
      method: the method that samples.
      config: the run's config.
      batch_size: the number of images of one program; 0 takes `config.evaluate.batch_size`.
      sources: `{split: source}` of the config's data that are already open.
      mesh: the devices to use; by default as many as divide the batch.
      given: conditions by name that replace those of held-out data; image i uses row `i % N` of each array.
    """

    def __init__(
        self,
        method: Method,
        config: ConfigDict,
        batch_size: int = 0,
        sources: dict[str, Source] | None = None,
        mesh: Mesh | None = None,
        given: Mapping[str, np.ndarray] | None = None,
    ):
        self.method, self.config = method, config
        self.batch_size = batch_size or config.evaluate.batch_size
        if self.batch_size < 1:
            raise UserError(f"config.evaluate.batch_size is {self.batch_size}; it must be at least 1.")
        self.mesh = mesh or make_mesh(0, self.batch_size, config.mesh.fsdp, config.mesh.tensor)
        self.layout = Layout.of(config, self.mesh)
        self._programs: dict[str, jax.stages.Wrapped] = {}
        self._sources = dict(sources or {})
        self._given = dict(given or {})
        self._extras: dict[str, Source] = {}
        self.corruptions = make_corruptions(config)
        self._made = entries_of(self.corruptions, image_shape(config))

    def source(self, split: str) -> Source:
        """Returns one split of the config's data, which is opened once."""
        if split not in self._sources:
            self._sources[split] = open_split(self.config, split)
        return self._sources[split]

    @property
    def given(self) -> Mapping[str, np.ndarray]:
        """Returns the conditions that replace those of held-out data; image i uses row `i % N` of each array."""
        return self._given

    def changed(self, method: Method, given: Mapping[str, np.ndarray]) -> Generator:
        """Returns a generator of another method with more given conditions, on the same devices and open data."""
        config, sources = self.config, self._sources
        return Generator(method, config, self.batch_size, sources, self.mesh, {**self._given, **given})

    def use_prompts(self, prompts: Sequence[str]) -> None:
        """Makes all later images follow these texts; image i has text `i % N` of N.

        Raises:
          UserError: where the model is not conditional on text, or the run's data have no tokenizer, or one that does
            not know a word.
        """
        if "tokens" not in self.method.conditions:
            raise UserError("--prompt was given, but this model is not conditional on text; leave it out.")
        if "tokens" in self.method.ignored:
            raise UserError(f"--prompt has no effect: {self.method.ignored['tokens']}; leave it out.")
        source = self.source(self.config.data.eval_split)
        tokenizer = getattr(source, "tokenizer", None)
        if tokenizer is None:
            raise UserError(
                f"--prompt needs the tokenizer that the model learned with; the data source {source.name} has none: "
                "set config.data.source to the captions that it was trained on."
            )
        self._given["tokens"] = tokenizer(list(prompts))

    def check(self, model: Model) -> None:
        """Traces the sampler and, for the last stage, the panels, so that their errors are found before training.

        Raises:
          UserError: as sampling would; or the sampler gives no images, or a panel has a shape that cannot be drawn.
        """
        if self.method.samples_images:
            jax.eval_shape(self._program("sample"), model, jnp.uint32(0), *self.inputs())
        if model.stage != self.method.stages[-1][1]:
            return
        index, batch = self._panel_arguments(PANEL_IMAGES, None)
        panels = jax.eval_shape(self._program("panels"), model, jnp.uint32(0), index, batch)
        for name, value in panels.items():
            if value.ndim not in (4, 5):
                raise UserError(
                    f"The method {self.config.method.name!r} draws the panel {name!r} as an array of shape "
                    f"{value.shape}, where images [N, H, W, C] or an animation [F, N, H, W, C] are needed."
                )

    def trace(self, what: str, model: Model) -> jax.stages.Traced:
        """Traces a program of this batch size for a model's shapes, ready to be compiled for the mesh.

        Args:
          what: the method's function: "sample", "panels" or "scores".
          model: the model, or its shapes.
        """
        split = over_data(self.mesh)
        index, batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), self.inputs())
        return self._program(what).trace(model, jax.ShapeDtypeStruct((), jnp.uint32), index, batch)

    def inputs(self) -> tuple[np.ndarray, Conditions]:
        """Returns the arguments of a program after model and seed: the first images' numbers and their conditions."""
        index = np.arange(self.batch_size, dtype=np.uint32)
        return index, self._conditions(index, None)

    def images(self, model: Model, seed: int, num: int, labels: Sequence[int] | None = None) -> Samples:
        """Draws `num` images. Image i has label `i % N` of the N given labels, or of all classes.

        Where some are not finite, a warning says how many.

        Raises:
          NotFinite: where no image is finite, or a solver has not finished one of them.
          UserError: where the method makes no images, or a label is not one of its classes.
        """
        parts: dict[str, list[np.ndarray]] = {"images": [], "finite": []}
        steps = Steps("sampling", num)
        for start in range(0, num, self.batch_size):
            index = np.arange(start, start + self.batch_size)
            found = self._run("sample", model, seed, index, self._conditions(index, labels))
            for name, values in found.items():
                parts[name].append(gathered(values))
            steps.done(start + self.batch_size)
        chosen = self._labels(np.arange(num), labels) if "label" in self.method.conditions else None
        images, finite = (np.concatenate(parts[name])[:num] for name in ("images", "finite"))
        sentence = "" if finite.all() else told(finite, self.method, model)
        if sentence and (not finite.any() or getattr(getattr(self.method, "sampler", None), "unfinished", "")):
            raise NotFinite(sentence)
        if sentence:
            log.warning(sentence)
        return Samples(images, chosen, finite, sentence)

    def panels(self, model: Model, seed: int, num: int, labels: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """Returns the method's panels, `{name: pictures}`, for the keys of the first `num` images or a few more.

        The number is rounded up to a multiple of the parts that a batch is split into. A warning says how many
        pictures are not finite.
        """
        index, batch = self._panel_arguments(num, labels)
        pictures = {k: gathered(v) for k, v in self._run("panels", model, seed, index, batch).items()}
        for sentence in panel_told(pictures):
            log.warning(sentence)
        return pictures

    def _panel_arguments(self, num: int, labels: Sequence[int] | None) -> tuple[np.ndarray, Conditions]:
        """Returns the images' numbers and the batch that panels are drawn for."""
        index = np.arange(-(-num // data_shards(self.mesh)) * data_shards(self.mesh), dtype=np.uint32)
        return index, self._conditions(index, labels) | self._panel_inputs(index)

    def scores(self, model: Model, seed: int, source: Source, limit: int = 0) -> dict[str, float]:
        """Returns the summary of the method's scores over a source, or over `limit` evenly spaced examples of it."""
        count = min(limit or len(source), len(source))
        chosen = np.linspace(0, len(source) - 1, count).astype(int)
        total: dict[str, list[np.ndarray]] = {}
        steps = Steps(f"scores on {source.split}", count)
        for start in range(0, count, self.batch_size):
            index = np.arange(start, start + self.batch_size)
            batch = _numeric(source.take(list(chosen[index % count])))
            for name, extra in self.config.data.extra.items():
                if extra.get("eval_split"):
                    batch |= _numeric(self._extra(name, index))
            for name, values in self._run("scores", model, seed, index, batch).items():
                total.setdefault(name, []).append(gathered(values)[: count - start])
            steps.done(start + self.batch_size)
        found = {name: np.concatenate(parts) for name, parts in total.items()}
        for name, values in found.items():
            broken = int((~np.isfinite(values)).sum())
            if broken:
                log.warning("%s is not finite for %d of %d examples, so its mean is not", name, broken, count)
        return self.method.summary(found)

    def score_names(self, model: Model, source: Source) -> list[str]:
        """Returns the names of the numbers that `scores` gives, without computing them; the model may be shapes."""
        index = np.arange(self.batch_size, dtype=np.uint32)
        batch = _numeric(source.take(list(index % len(source))))
        found = jax.eval_shape(self._program("scores"), model, jnp.uint32(0), index, batch)
        return list(self.method.summary({name: np.ones(value.shape) for name, value in found.items()}))

    def _run(self, what: str, model: Model, seed: int, index: np.ndarray, batch: Conditions) -> Tree:
        """Runs one of the method's functions of (model, keys, batch), compiled over the mesh."""
        check_limits(self.method, batch)
        placed = place_full_batch({**batch, "index": index.astype(np.uint32)}, self.mesh)
        numbers = placed.pop("index")
        model = jax.device_put(model, self.layout.model(model))
        return await_cpu(self.mesh, self._program(what)(model, jnp.uint32(seed), numbers, placed))

    def _program(self, what: str) -> jax.stages.Wrapped:
        if what not in self._programs:
            self._programs[what] = self._compile(what)
        return self._programs[what]

    def _compile(self, what: str) -> jax.stages.Wrapped:
        function = getattr(self.method, what)
        everywhere, split = replicated(self.mesh), over_data(self.mesh)

        def program(model: Model, seed: jax.Array, index: jax.Array, batch: Batch) -> Tree:
            root = seed_key(seed, "sample")
            keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(index)
            batch = to_float(batch)
            if "image" in batch:
                batch = corrupt(batch, keys, self.corruptions)
            if what == "sample" and self.corruptions:  # a sampler does not see what its conditions are made of
                batch = Entries({name: batch[name] for name in batch.keys() & {*self.method.conditions}})
            result = function(model, keys, batch)
            if what != "sample":
                return result
            images = self._checked(result, len(index))
            return {"images": to_uint8(images), "finite": finite_images(images)}

        out = everywhere if what == "panels" else split
        of_model = everywhere if self.layout.all_replicated else None  # None: as it was placed
        return jax.jit(program, in_shardings=(of_model, everywhere, split, split), out_shardings=out)

    def _checked(self, images: Any, count: int) -> jax.Array:
        """Returns what the method's `sample` gave; raises a UserError where that is not `count` images."""
        shape, dtype = getattr(images, "shape", None), getattr(images, "dtype", np.dtype(object))
        wanted = (count, *getattr(self.method, "image_shape", image_shape(self.config)))
        # a pretrained pipeline has sizes of its own, and the images of an early stage may be smaller
        any_size = "pretrained" in self.config.init_from or len(self.method.stages) > 1
        if shape is None or len(shape) != 4 or (shape[0] != count if any_size else tuple(shape) != wanted):
            found = f"an array of shape {tuple(shape)}" if shape is not None else f"a {type(images).__name__}"
        elif not jnp.issubdtype(dtype, jnp.floating):
            found = f"numbers of type {dtype}"
        else:
            return images
        raise UserError(
            f"The method {self.config.method.name!r} samples {found}, where {count} images of floats in [-1, 1] and of "
            f"shape {wanted} are needed: correct its sample, its sampler or its network."
        )

    def _conditions(self, index: np.ndarray, labels: Sequence[int] | None) -> Conditions:
        """Returns the sampler's conditions for images of these numbers: labels by number, others from held-out data."""
        wanted = self.method.conditions
        batch = {"label": self._labels(index, labels)} if "label" in wanted else {}
        if labels is not None and "label" not in wanted:
            raise UserError("--labels was given, but this model is not conditional on labels; leave it out.")
        if labels is not None and "label" in self.method.ignored:
            raise UserError(f"--labels has no effect: {self.method.ignored['label']}; leave it out.")
        batch |= {name: rows[index % len(rows)] for name, rows in self._given.items()}
        derived = self._made if "image" in batch else ()
        others = [name for name in wanted if name not in batch and name not in derived]
        return batch | self._of_data(index, others) if others else batch

    def _of_data(self, index: np.ndarray, names: Sequence[str]) -> Conditions:
        """Returns entries of held-out examples; the images stand for those that a program makes of them.

        Entries of the sources of `config.data.extra`, `<name>_<entry>`, are those of their held-out splits.
        """
        held = dict.fromkeys("image" if name in self._made else name for name in names)
        found = Entries()
        for extra in self.config.data.extra:
            if any(name.startswith(f"{extra}_") for name in held):
                found.update(self._extra(extra, index))
        if any(name not in found for name in held):
            held_out = self.source(self.config.data.eval_split)
            found = Entries({**held_out.take(list(index % len(held_out))), **found})
        return {name: np.asarray(found[name]) for name in held}

    def _extra(self, name: str, index: np.ndarray) -> Conditions:
        """Returns held-out examples of a source of `config.data.extra` as batches name them: `<name>_<entry>`."""
        if name not in self._extras:
            self._extras[name] = extra_held_out(self.config, name)
        source = self._extras[name]
        return {f"{name}_{key}": values for key, values in source.take(list(index % len(source))).items()}

    def _panel_inputs(self, index: np.ndarray) -> Conditions:
        """Returns held-out examples for the method's panels; none where the data cannot be opened."""
        wanted = self.method.panel_inputs
        if not wanted:
            return {}
        try:
            self.source(self.config.data.eval_split)
        except UserError as error:
            log.info("no pictures of held-out data: %s", error)
            return {}
        return self._of_data(index, wanted)

    def _labels(self, index: np.ndarray, labels: Sequence[int] | None) -> np.ndarray:
        classes = self.config.data.num_classes
        wanted = range(classes) if labels is None else labels
        if len(wanted) == 0 or min(wanted) < 0 or max(wanted) >= classes:
            raise UserError(f"--labels must be numbers from 0 to {classes - 1}, not {list(labels or ())}.")
        return np.asarray(wanted, np.int32)[index % len(wanted)]


def _numeric(batch: Mapping[str, np.ndarray]) -> Conditions:
    """Returns the entries that are arrays of numbers: captions, for example, are not."""
    return {k: np.asarray(v) for k, v in batch.items() if np.asarray(v).dtype.kind in "uifb"}
