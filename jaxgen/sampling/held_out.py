"""Finds what samples are drawn for: conditions from held-out examples, labels by number, and what a user gives."""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from jaxgen.arrays import Entries
from jaxgen.config import image_shape
from jaxgen.data import Source
from jaxgen.data.corruptions import corrupt, entries_of
from jaxgen.data.transforms import to_float
from jaxgen.errors import UserError
from jaxgen.methods.base import Method
from jaxgen.runs.setup import extra_held_out, make_corruptions, open_split
from jaxgen.runs.state import seed_key

log = logging.getLogger("jaxgen")

Conditions = dict[str, np.ndarray]  # {batch entry: [N, ...]}: what the method's functions read, on the host
AT_ONCE = 100  # images that corruptions are made of in one program


def _flag_of(entry: str) -> str:
    """Returns the flag that gives a condition to a model."""
    if entry == "tokens":
        return "--prompt"
    return f"--{entry}" if entry in ("image", "mask", "hint") else f"--input={entry}=<file>"


def sample_keys(seed: jax.Array, index: jax.Array) -> jax.Array:
    """Returns the random key of each sample of these numbers, `[B]`."""
    root = seed_key(seed, "sample")
    return jax.vmap(lambda i: jax.random.fold_in(root, i))(index)


class HeldOut:
    """Gives the conditions of samples by their numbers: sample i has row `i % N` of what is given or held out.

    Args:
      method: the method whose conditions they are.
      config: the run's config.
      sources: `{split: source}` of the config's data that are already open.
      given: conditions by name that replace those of held-out data; it may be filled later.
    """

    def __init__(
        self,
        method: Method,
        config: ConfigDict,
        sources: Mapping[str, Source],
        given: MutableMapping[str, np.ndarray],
    ):
        self.method, self.config, self.given = method, config, given
        self.sources = dict(sources)
        self._extras: dict[str, Source] = {}
        self.corruptions = make_corruptions(config)
        self.made = entries_of(self.corruptions, image_shape(config))
        self._corrupt = jax.jit(self._corrupted)

    def source(self, split: str) -> Source:
        """Returns one split of the config's data, which is opened once."""
        if split not in self.sources:
            self.sources[split] = open_split(self.config, split)
        return self.sources[split]

    @property
    def wanted(self) -> tuple[str, ...]:
        """Returns the method's conditions, beside the label, that come from held-out data."""
        derived = self.made if "image" in self.given else ()
        names = [name for name in self.method.conditions if name not in self.given and name not in derived]
        return tuple(name for name in names if name != "label")

    def conditions(self, index: np.ndarray, labels: Sequence[int] | None) -> Conditions:
        """Returns the sampler's conditions for samples of these numbers.

        A condition that corruptions make is left to the program, which makes it of `image`.

        Args:
          labels: sample i has label `i % N` of these. By default it has that of its held-out example or, where it has
            none, of all classes.

        Raises:
          UserError: the model has no use for the labels, or the data do not have what it reads.
        """
        wanted = self.method.conditions
        if labels is not None and "label" not in wanted:
            raise UserError("--labels was given, but this model is not conditional on labels; leave it out.")
        if labels is not None and "label" in self.method.ignored:
            raise UserError(f"--labels has no effect: {self.method.ignored['label']}; leave it out.")
        batch = {name: rows[index % len(rows)] for name, rows in self.given.items()}
        rows = self.rows(index, self.wanted) if self.wanted else Entries()
        batch |= self._of(rows, self.wanted)
        if "label" in wanted and "label" not in batch:
            own = labels is None and "label" in rows
            batch["label"] = np.asarray(rows["label"], np.int32) if own else self._labels(index, labels)
        return batch

    def asked(self, seed: int, index: np.ndarray, batch: Conditions) -> Conditions:
        """Returns all that samples of these numbers are drawn for: their conditions, what corruptions make of images,
        and every entry of the held-out examples that the conditions are of.

        Args:
          seed: the seed that the samples are drawn with.
          index: the samples' numbers.
          batch: their conditions, as `conditions` gives them.
        """
        rows = self.rows(index, self.wanted) if self.wanted else {}
        made = self.corrupted(batch["image"], seed, index) if self.made and "image" in batch else {}
        return {**rows, **made, **batch}

    def rows(self, index: np.ndarray, names: Sequence[str]) -> Entries:
        """Returns complete held-out examples for samples of these numbers, from the sources that have these entries.

        Entries of the sources of `config.data.extra`, `<name>_<entry>`, are those of their held-out splits.
        """
        held = {"image" if name in self.made else name for name in names}
        found = Entries()
        for extra in self.config.data.extra:
            if any(name.startswith(f"{extra}_") for name in held):
                found.update(self.extra(extra, index))
        if any(name not in found for name in held):
            if self.config.data.source == "none":
                raise UserError(
                    f"This model reads {', '.join(names)}, and its config has no data to take them from: give "
                    f"{' and '.join(map(_flag_of, names))}."
                )
            held_out = self.source(self.config.data.eval_split)
            found = Entries({**held_out.take(list(index % len(held_out))), **found})
        return found

    def of_data(self, index: np.ndarray, names: Sequence[str]) -> Conditions:
        """Returns entries of held-out examples; the images stand for those that a program makes of them."""
        return self._of(self.rows(index, names), names)

    def _of(self, rows: Entries, names: Sequence[str]) -> Conditions:
        held = dict.fromkeys("image" if name in self.made else name for name in names)
        return {name: np.asarray(rows[name]) for name in held}

    def extra(self, name: str, index: np.ndarray) -> Conditions:
        """Returns held-out examples of a source of `config.data.extra` as batches name them: `<name>_<entry>`."""
        if name not in self._extras:
            self._extras[name] = extra_held_out(self.config, name)
        source = self._extras[name]
        return {f"{name}_{key}": values for key, values in source.take(list(index % len(source))).items()}

    def panel_inputs(self, index: np.ndarray) -> Conditions:
        """Returns held-out examples for the method's panels; none where the data cannot be opened."""
        wanted = self.method.panel_inputs
        if not wanted:
            return {}
        try:
            self.source(self.config.data.eval_split)
        except UserError as error:
            log.info("no pictures of held-out data: %s", error)
            return {}
        return self.of_data(index, wanted)

    def corrupted(self, images: UInt8[np.ndarray, "N H W C"], seed: int, index: np.ndarray | None = None) -> Conditions:
        """Returns what the config's corruptions make of images, `{entry: [N, ...]}`: pictures are float32 in [-1, 1].

        The random numbers are those of the samples with these numbers, so that what is made of a sample can be held
        against its condition.

        Args:
          index: the samples' numbers; 0 to N - 1 by default.
        """
        index = np.arange(len(images)) if index is None else index
        parts = []
        for start in range(0, len(images), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            parts.append(self._corrupt(jnp.uint32(seed), index[part].astype(np.uint32), images[part]))
        return {name: np.concatenate([np.asarray(one[name]) for one in parts]) for name in self.made}

    def _corrupted(self, seed: jax.Array, index: jax.Array, images: jax.Array) -> dict[str, jax.Array]:
        batch = corrupt(to_float({"image": images}), sample_keys(seed, index), self.corruptions)
        return {name: batch[name] for name in self.made}

    def _labels(self, index: np.ndarray, labels: Sequence[int] | None) -> np.ndarray:
        classes = self.config.data.num_classes
        wanted = range(classes) if labels is None else labels
        if len(wanted) == 0 or min(wanted) < 0 or max(wanted) >= classes:
            raise UserError(f"--labels must be numbers from 0 to {classes - 1}, not {list(labels or ())}.")
        return np.asarray(wanted, np.int32)[index % len(wanted)]
