"""Draws images from a trained model: image i depends on the seed and on i, not on how many are drawn together."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float
from ml_collections import ConfigDict

from jaxgen.arrays import Batch, Entries, Tree
from jaxgen.config import image_shape
from jaxgen.data import Source
from jaxgen.data.corruptions import corrupt
from jaxgen.data.lost_text import summary
from jaxgen.data.transforms import to_float
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model, check_limits
from jaxgen.parallel.distributed import gathered
from jaxgen.parallel.mesh import await_cpu, data_shards, make_mesh, over_data, place_full_batch, replicated
from jaxgen.parallel.sharding import Layout
from jaxgen.runs.progress import Steps
from jaxgen.runs.setup import text_tokenizer
from jaxgen.sampling.finite import NotFinite, panel_told, told
from jaxgen.sampling.held_out import Conditions, HeldOut, sample_keys
from jaxgen.sampling.kinds import ANY, Shape, output_of, read
from jaxgen.sampling.samples import Samples

log = logging.getLogger("jaxgen")

MOST_LINES = 20  # if more texts lost something, one line sums up
ANOTHER = zlib.crc32(b"another draw")  # folded into the keys of further draws under the same conditions
PANEL_IMAGES = 16  # how many images a run's panels are drawn for, or a few more


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
      words: `{word: its token ids}` of words that prompts may have beside those that the model learned with.
    """

    def __init__(
        self,
        method: Method,
        config: ConfigDict,
        batch_size: int = 0,
        sources: dict[str, Source] | None = None,
        mesh: Mesh | None = None,
        given: Mapping[str, np.ndarray] | None = None,
        words: Mapping[str, tuple[int, ...]] | None = None,
    ):
        self.method, self.config = method, config
        self.output = output_of(method.gives, type(method).__name__)
        self.batch_size = batch_size or config.evaluate.batch_size
        if self.batch_size < 1:
            raise UserError(f"config.evaluate.batch_size is {self.batch_size}; it must be at least 1.")
        self.mesh = mesh or make_mesh(0, self.batch_size, config.mesh.fsdp, config.mesh.tensor)
        self.layout = Layout.of(config, self.mesh)
        self._programs: dict[str, jax.stages.Wrapped] = {}
        self._given, self.words = dict(given or {}), dict(words or {})
        self.held_out = HeldOut(method, config, sources or {}, self._given)
        self.corruptions = self.held_out.corruptions

    def source(self, split: str) -> Source:
        """Returns one split of the config's data, which is opened once."""
        return self.held_out.source(split)

    @property
    def given(self) -> Mapping[str, np.ndarray]:
        """Returns the conditions that replace those of held-out data; image i uses row `i % N` of each array."""
        return self._given

    def give(self, given: Mapping[str, np.ndarray]) -> None:
        """Replaces all given conditions by others of the same names; the programs that are compiled stay."""
        assert given.keys() == self._given.keys(), "programs are compiled for the names of what is given"
        self._given.update(given)

    def changed(
        self, method: Method, given: Mapping[str, np.ndarray], words: Mapping[str, tuple[int, ...]] | None = None
    ) -> Generator:
        """Returns a generator of another method with more given conditions and words, on the same devices and data."""
        config, sources = self.config, self.held_out.sources
        given, words = {**self._given, **given}, {**self.words, **(words or {})}
        return Generator(method, config, self.batch_size, sources, self.mesh, given, words)

    def tokens_of(self, texts: Sequence[str], flag: str) -> np.ndarray:
        """Returns the tokens int32 `[N, L]` of texts that a flag gave, and tells what of a text was lost.

        Raises:
          UserError: the run's data have no tokenizer, or one that does not know a word.
        """
        return self._tokens(list(texts), flag)

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
        self._given["tokens"] = self._tokens(list(prompts), "--prompt")

    def use_negative_prompt(self, text: str) -> None:
        """Makes guidance lead all later images away from a text, in place of the empty one.

        Raises:
          UserError: where the model is not conditional on text, no guidance leads away from a text, or as `use_prompts`
            does.
        """
        if "tokens" not in self.method.conditions:
            raise UserError("--negative_prompt was given, but this model is not conditional on text; leave it out.")
        guidance = getattr(getattr(self.method, "method", self.method), "guidance", None)
        if guidance is None or "null" not in guidance.reads:
            why = "there is no config.guidance" if guidance is None else guidance.unread
            raise UserError(f"--negative_prompt has no effect: {why}; leave it out.")
        self._given["null_tokens"] = self._tokens([text], "--negative_prompt")

    @property
    def tokenizer(self) -> Any:
        """Returns the tokenizer that the model learned with, that of its base or of its data; None without one."""
        tokenizer = text_tokenizer(self.config)
        if tokenizer is None:
            tokenizer = getattr(self.source(self.config.data.eval_split), "tokenizer", None)
        return tokenizer

    def _tokens(self, texts: list[str], flag: str) -> np.ndarray:
        """Returns the tokens int32 `[N, L]` of texts that a flag gave, by the tokenizer that the model learned with."""
        tokenizer = self.tokenizer
        if tokenizer is None:
            source = self.source(self.config.data.eval_split)
            raise UserError(
                f"{flag} needs the tokenizer that the model learned with; the data source {source.name} has none: "
                "set config.data.source to the captions that it was trained on."
            )
        known = tokenizer.with_words(self.words) if self.words else tokenizer  # a source's own may be any function
        tokens = known(texts)
        lost = dict(zip(texts, known.lost(texts), strict=True)) if hasattr(known, "lost") else {}
        sentences = [found.told(f"{flag}={text!r}") for text, found in lost.items() if found]
        if len(sentences) > MOST_LINES:
            sentences = [f"the texts of {flag}: {summary(list(lost.values()), 'texts')}"]
        for sentence in sentences:
            log.warning(sentence)
        return tokens

    def check(self, model: Model) -> None:
        """Traces the sampler and, for the last stage, the panels, so that their errors are found before training.

        Raises:
          UserError: as sampling would; or the sampler does not give what the method's `gives` says, or a panel has a
            shape that cannot be drawn.
        """
        if self.method.has_sampler:
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
        """Draws `num` images; see `draw`.

        Raises:
          UserError: also where the method gives something else.
        """
        if self.method.has_sampler and not self.method.samples_images:
            raise UserError(f"The method {type(self.method).__name__} gives {self.output.plural}, and no images.")
        return self.draw(model, seed, num, labels)

    def draw(
        self, model: Model, seed: int, num: int, labels: Sequence[int] | None = None, asked: bool = False,
        again: int = 0, done: Callable[[int], object] = lambda images: None,
    ) -> Samples:  # fmt: skip
        """Draws `num` samples, of what the method gives. Where some are not finite, a warning says how many.

        Args:
          labels: sample i has label `i % N` of these N. By default it has that of the held-out example which its other
            conditions are of, and where there is no other condition, class `i % N` of all N.
          asked: whether to say what each sample was drawn for, in `Samples.asked`.
          again: 0, or the number of a further draw under the same conditions, what corruptions draw at random included.
          done: is called after each batch with the number of samples that are drawn.

        Raises:
          NotFinite: where no sample is finite, or a solver has not finished one of them.
          UserError: where the method has no sampler, or a label is not one of its classes.
        """
        parts: list[dict[str, Any]] = []
        wanted: list[Conditions] = []
        steps = Steps("sampling", num)
        for start in range(0, num, self.batch_size):
            index = np.arange(start, start + self.batch_size)
            batch = self._conditions(index, labels)
            found = self._run("again" if again else "sample", model, seed, index, batch, again)
            parts.append(jax.tree.map(gathered, found))
            labelled = {name: batch[name] for name in ("label",) if name in batch}
            wanted.append(self.held_out.asked(seed, index, batch) if asked else labelled)
            steps.done(start + self.batch_size)
            done(min(start + self.batch_size, num))
        found = jax.tree.map(lambda *values: np.concatenate(values)[:num], *parts)
        of = {name: np.concatenate([one[name] for one in wanted])[:num] for name in wanted[0]} if wanted else {}
        finite, plural = found["finite"], self.output.plural
        sentence = "" if finite.all() else told(finite, self.method, model, plural)
        if sentence and (not finite.any() or getattr(getattr(self.method, "sampler", None), "unfinished", "")):
            raise NotFinite(sentence)
        if sentence:
            log.warning(sentence)
        chosen = of["label"] if "label" in self.method.conditions else None
        main = found[self.output.key or self.output.entry()]
        return Samples(main, chosen, finite, sentence, self.output, found["more"], of if asked else {})

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

    def latent_plane(
        self, model: Model, seed: int, places: Float[np.ndarray, "N 2"], label: int | None = None
    ) -> Float[np.ndarray, "N H W C"]:
        """Returns the images, in [-1, 1], at places of a plane of latents, of a method that `has_latent_plane`.

        Args:
          seed: chooses the plane.
          places: x (to the right) and y (upwards) in [0, 1].
          label: the class of all images, for a method that is conditional on labels.
        """
        parts = []
        for start in range(0, len(places), self.batch_size):
            part = np.zeros((self.batch_size, 2), np.float32)
            some = places[start : start + self.batch_size]
            part[: len(some)] = some
            index = np.zeros(self.batch_size, np.uint32)
            batch = self._conditions(index, None if label is None else (label,)) | {"place": part}
            parts.append(gathered(self._run("latent_plane", model, seed, index, batch))[: len(some)])
        return np.concatenate(parts)

    def volumes(self, model: Model, seed: int, num: int, labels: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """Returns the first `num` samples as objects in space, of a method that `has_volumes`."""
        index, batch = self._panel_arguments(num, labels)
        return {k: gathered(v)[:num] for k, v in self._run("volumes", model, seed, index, batch).items()}

    def _panel_arguments(self, num: int, labels: Sequence[int] | None) -> tuple[np.ndarray, Conditions]:
        """Returns the images' numbers and the batch that panels are drawn for."""
        index = np.arange(-(-num // data_shards(self.mesh)) * data_shards(self.mesh), dtype=np.uint32)
        return index, self._conditions(index, labels) | self.held_out.panel_inputs(index)

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
                    batch |= _numeric(self.held_out.extra(name, index))
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

    def _run(self, what: str, model: Model, seed: int, index: np.ndarray, batch: Conditions, again: int = 0) -> Tree:
        """Runs one of the method's functions of (model, keys, batch), compiled over the mesh."""
        check_limits(self.method, batch)
        placed = place_full_batch({**batch, "index": index.astype(np.uint32)}, self.mesh)
        numbers = placed.pop("index")
        model = jax.device_put(model, self.layout.model(model))
        more = (jnp.uint32(again),) if again else ()
        return await_cpu(self.mesh, self._program(what)(model, jnp.uint32(seed), numbers, placed, *more))

    def _program(self, what: str) -> jax.stages.Wrapped:
        if what not in self._programs:
            self._programs[what] = self._compile(what)
        return self._programs[what]

    def _compile(self, what: str) -> jax.stages.Wrapped:
        again, what = what == "again", "sample" if what == "again" else what
        function = getattr(self.method, what)
        everywhere, split = replicated(self.mesh), over_data(self.mesh)

        def program(model: Model, seed: jax.Array, index: jax.Array, batch: Batch, *number: jax.Array) -> Tree:
            keys = sample_keys(seed, index)
            batch = to_float(batch)
            if "image" in batch:
                batch = corrupt(batch, keys, self.corruptions)
            if number:  # another draw under the same conditions
                keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, ANOTHER), number[0]))(keys)
            if what == "sample" and self.corruptions:  # a sampler does not see what its conditions are made of
                read_by_it = {*self.method.conditions, *(self._given.keys() - {"image"})}
                batch = Entries({name: batch[name] for name in batch.keys() & read_by_it})
            result = function(model, keys, batch)
            if what != "sample":
                return result
            given = read(result, self.output, len(index), self._shape(), self._who())
            return {self.output.key or self.output.entry(): given.main, "finite": given.finite, "more": given.more}

        out = everywhere if what == "panels" else split
        of_model = everywhere if self.layout.all_replicated else None  # None: as it was placed
        more = (everywhere,) if again else ()
        return jax.jit(program, in_shardings=(of_model, everywhere, split, split, *more), out_shardings=out)

    def _who(self) -> str:
        return f"The method {self.config.method.name!r}"

    def _shape(self) -> Shape:
        """Returns the shape of one sample."""
        shape = getattr(self.method, "image_shape", image_shape(self.config))
        # a pretrained pipeline has sizes of its own, and the images of an early stage may be smaller
        any_size = isinstance(self.config.init_from.get("pretrained"), str) or len(self.method.stages) > 1
        return self.output.shape((ANY,) * len(shape) if any_size else shape)

    def _conditions(self, index: np.ndarray, labels: Sequence[int] | None) -> Conditions:
        return self.held_out.conditions(index, labels)


def _numeric(batch: Mapping[str, np.ndarray]) -> Conditions:
    """Returns the entries that are arrays of numbers: captions, for example, are not."""
    return {k: np.asarray(v) for k, v in batch.items() if np.asarray(v).dtype.kind in "uifb"}
