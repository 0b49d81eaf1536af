"""The contract of a method is networks, turns and a sampler.

A new method is one file in this folder with a frozen dataclass derived from `Method`, a config that names it and
a test; nothing shared is edited. `docs/methods.md` shows one of 25 lines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

import flax.struct
import jax
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch, Memory, Metrics, Params, Tree
from jaxgen.errors import UserError


class LossState(Protocol):
    """Holds the part of the state, other than the parameters, that a loss may read."""

    @property
    def step(self) -> Array:
        """Returns the number of updates done, int32."""

    @property
    def images(self) -> Array:
        """Returns the number of images drawn from the data, uint32: for warm-ups and fades."""

    @property
    def memory(self) -> Memory: ...

    @property
    def ema(self) -> Params:
        """Returns `{group: averaged parameters}`: for distillation. Without averaging, they are the parameters that the
        step began with; behind lazy turns, those that these left."""


LossResult = tuple[Array, tuple[Metrics, Memory]]  # (scalar, (metrics, the memory entries that change))
Sampled = Array | Mapping[str, Array]  # what `Method.gives` names, alone or with further arrays of as many rows
Loss = Callable[[Params, Batch, Array, LossState], LossResult]  # (params, batch, key, state) -> result


@dataclasses.dataclass(frozen=True)
class Turn:
    """A turn is one optimiser update of a step.

    Attributes:
      name: its name in metrics and, unless `keys` is another one, in random keys.
      groups: the parameter groups that learn; the loss is differentiated in these only.
      loss: `(params, batch, key, state) -> (scalar, (metrics, memory_updates))`; `params` holds every group,
        learned and frozen; `state` is the read-only rest (`memory`, `ema`, `step`, `images`).
      every: the turn is due at steps divisible by this (lazy regularisation); above 1 it runs before the others.
      repeats: how often it runs in a step, each time on a fresh batch (discriminator steps).
      keys: the name that its random keys are folded from, by default its own. Turns that share it draw the same
        numbers, so that what several of them compute in the same way is compiled once.
    """

    name: str
    groups: tuple[str, ...]
    loss: Loss
    every: int = 1
    repeats: int = 1
    keys: str = ""


@flax.struct.dataclass
class Model:
    """Holds the part of a state that sampling and evaluation read.

    Attributes:
      params: every group, frozen ones too; the average of a group where an EMA is kept.
      memory: values that are carried and not learned by gradients (batch statistics, ...).
      stage: the stage whose shapes the parameters have.
    """

    params: Params
    memory: Memory
    stage: int = flax.struct.field(pytree_node=False, default=0)


@flax.struct.dataclass
class State:
    """Holds everything that training changes.

    No two leaves share a buffer.

    Attributes:
      step: int32, updates done.
      images: uint32, images drawn from the data.
      params: `{group: parameters}` of the groups that learn.
      memory: values that are carried and not learned by gradients: batch statistics, pools, histories.
      opt_state: `{group: optax state}` of the groups that a turn of the stage trains.
      ema: `{group: averaged parameters}`.
      nonfinite_count: `{turn: int32}` consecutive updates that were rolled back for not being finite.
    """

    step: Array
    images: Array
    params: Params
    memory: Memory
    opt_state: dict[str, Tree]
    ema: Params
    nonfinite_count: dict[str, Array]


class Method:
    """This is the base of all methods: a frozen dataclass whose fields are its modules and hyper-parameters.

    Fields named `image_shape`, `num_classes` and `sampler` are filled in from the config's data and sampler.

    A subclass overrides the properties below by properties or by class attributes, such as
    `ema_groups = ("generator",)`.
    """

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """Returns `((images, stage), ...)`: the number of images from which on each stage runs.

        Shapes may change with it.
        """
        return ((0, 0),)

    @property
    def most_examples(self) -> int | None:
        """Returns how many examples the method learns from at most, such as 1 for a model of one picture; None for any
        number. Data of more are refused before training."""
        return None

    def told_at(self, stage: int) -> str:
        """Returns a sentence on what is sampled at a stage before the last; "" where there is nothing to say."""
        return ""

    @property
    def required_groups(self) -> tuple[str, ...]:
        """Returns the groups that must be given through `config.init_from`."""
        return ()

    @property
    def network_needs(self) -> Mapping[str, tuple[str, ...]]:
        """Returns what the method reads of its networks beside calling them: `{field: names of attributes}`.

        A config that names a network without them, one of another kind, is refused before anything is traced.
        """
        return {}

    @property
    def ema_groups(self) -> tuple[str, ...] | None:
        """Returns the groups of which an EMA is kept; None means all that learn."""
        return None

    @property
    def conditions(self) -> tuple[str, ...]:
        """Returns the batch entries that `sample` reads.

        Entries are taken from held-out data, and all of a sample's from one example. Where the label is the only one,
        it is made up: sample i has class i.
        """
        return ()

    @property
    def optional(self) -> tuple[str, ...]:
        """Returns the entries that `sample` also reads where a user gives them; nothing takes their place elsewhere."""
        return ()

    @property
    def gives(self) -> str:
        """Returns what `sample` gives: "image" `[B, H, W, C]`, "video" `[B, F, H, W, C]`, "embedding" `[B, D]`,
        "tokens" `[B, L]`, or another class of `jaxgen.sampling.kinds`.
        """
        return "image"

    @property
    def ignored(self) -> Mapping[str, str]:
        """Returns the entries of `conditions` that change no sample of this method as it is set up.

        Each comes with a clause that says why, such as "classifier-free guidance of scale 0 draws without a condition".
        """
        return {}

    @property
    def whole_batch(self) -> bool:
        """Returns whether the loss compares the examples of a batch with each other, so that it has to see all of them
        at once: a config that cuts a batch into parts (`train.accumulate`) is refused.
        """
        return False

    @property
    def panel_inputs(self) -> tuple[str, ...]:
        """Returns the batch entries of held-out data that `panels` also reads; `label` is then the true one.

        They are missing where those data cannot be opened.
        """
        return ()

    @property
    def columns(self) -> Mapping[str, int]:
        """Returns the number of images in a row, `{panel: columns}`, of each panel that is a table.

        Others fill a square.
        """
        return {}

    def init(
        self,
        key: Array,
        batch: Batch,
        stage: int,
        given: Params,
        params: Params,
        memory: Memory,
    ) -> tuple[Params, Memory]:
        """Returns all learned groups and the memory at the start of a stage; runs under jit.

        Args:
          batch: one prepared batch (`image` float32 in [-1, 1]), for shapes.
          given: groups loaded through `config.init_from`. One that is returned learns, from the loaded
            weights on; one that is not returned stays frozen. At later stages those that learn already are
            left out: `params` has them.
          params, memory: what has been learned and carried so far. They are empty at the first stage, except for the
            memory that came with given groups.
        """
        raise NotImplementedError

    @property
    def entries(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        """Returns `(shape without the batch axis, dtype)` of the entries that the networks determine.

        `image` and `label` are not among them.
        """
        return {}

    @property
    def limits(self) -> Mapping[str, int]:
        """Returns `{entry: count}` of the whole numbers that networks look up in tables: each is in [0, count).

        By default these are labels, in [0, num_classes), and tokens, in the vocabulary of the method's `text` network.
        """
        classes, words = getattr(self, "num_classes", 0), getattr(getattr(self, "text", None), "vocabulary", 0)
        return ({"label": classes} if classes else {}) | ({"tokens": words, "null_tokens": words} if words else {})

    @property
    def exempt(self) -> Mapping[str, int]:
        """Returns `{entry: number}`: one number outside of `limits` that the method does not look up, such as the 255
        of pixels without a class.
        """
        return {}

    def untrained(self, key: Array, batch: Batch) -> tuple[Params, Memory]:
        """Returns fresh weights of the groups in `required_groups`, and the memory that would come with them.

        A plan takes their shapes where the trained weights are not available. A group that is left out must be given.
        """
        return {}, {}

    def extended(self, group: str, loaded: Tree, fresh: Tree) -> Tree:
        """Returns the loaded weights that a group which learns starts from, with parameters added that they lack.

        By default nothing is added, and weights that lack a parameter are refused. A method overrides it for parts that
        change nothing at the start, such as the features of a time that the loaded network did not see.
        """
        return loaded

    def turns(self, stage: int) -> tuple[Turn, ...]:
        """Returns the turns of one step, in the order in which they run; lazy ones come before the others."""
        raise NotImplementedError

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Sampled:
        """Returns what `gives` names, drawn from one key per sample and the batch's conditions: as a rule float32
        images `[B, H, W, C]` in [-1, 1].

        Where there is more, such as latents or masks, it is a dict: `{"image": images, "latent": [B, ...], ...}`. The
        further arrays are written to `samples.npz`, which the data source `npz:` reads.
        """
        raise UserError(f"The method {type(self).__name__} makes no images; it has nothing to sample.")

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns pictures for the report: `{name: [N, H, W, C] images, or [F, N, H, W, C] an animation}`."""
        return {}

    def latent_plane(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        """Returns the images at places of a plane in the space of latents, in [-1, 1].

        `batch["place"]` [B, 2] has x (to the right) and y (upwards) of each, in [0, 1]; `keys` choose the plane, and
        are all equal. Only a method with such a space overrides it.
        """
        raise UserError(f"The method {type(self).__name__} has no plane of latents.")

    def volumes(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B S S S ..."]]:
        """Returns the samples as objects in space, on the points of `jaxgen.geometry.surface.grid`: `surface`
        `[B, S, S, S]`, negative inside, and `colour` `[B, S, S, S, 3]` in [-1, 1]. `--mode=sample` writes their meshes.

        Only a method whose samples are objects overrides it.
        """
        return {}

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        """Returns one number for each held-out example, `{name: [B]}`; `--mode=evaluate` reports their `summary`."""
        return {}

    @property
    def encodes(self) -> str:
        """Returns the entry that `python -m jaxgen.sampling.latents` writes beside images, once, for the training of a
        second stage, such as "moments" or "codes"; "" for a method that encodes nothing.
        """
        return ""

    def encode_images(self, model: Model, image: Float[Array, "B H W C"]) -> Array:
        """Returns the entry `encodes` of images, `[B, ...]`, without randomness."""
        raise UserError(f"The method {type(self).__name__} encodes nothing.")

    def summary(self, scores: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns the numbers of a data set from its examples' scores `[N, ...]`: their means, if not overridden."""
        return {name: float(values.mean()) for name, values in scores.items()}

    def better(self, score: str) -> str | None:
        """Returns whether a number of `summary` is better "lower" or "higher"; None where neither is better."""
        return "higher" if score.startswith("accuracy") else "lower"

    @property
    def has_sampler(self) -> bool:
        """Returns whether the method has a sampler."""
        return type(self).sample is not Method.sample

    @property
    def has_volumes(self) -> bool:
        """Returns whether the samples are objects in space, which `volumes` gives."""
        return type(self).volumes is not Method.volumes

    @property
    def has_latent_plane(self) -> bool:
        """Returns whether images can be drawn at places of a plane of latents, under no condition but a label."""
        own = type(self).latent_plane is not Method.latent_plane
        return own and self.samples_images and set(self.conditions) <= {"label"}

    @property
    def samples_images(self) -> bool:
        """Returns whether the method has a sampler, and that gives images."""
        return self.has_sampler and self.gives == "image"


def check_examples(method: Method, count: int, source: str) -> None:
    """Raises a UserError where data of `count` examples are more than the method learns from."""
    most = method.most_examples
    if most is not None and count > most:
        raise UserError(
            f"{type(method).__name__} learns from {most} example{'' if most == 1 else 's'}, and the data {source!r} "
            f"have {count}: name one picture, config.data.source=image:<file>, or set config.data.examples={most}."
        )


def main_of(sampled: Sampled, gives: str) -> Array:
    """Returns the array that `gives` names of what a method's `sample` returned."""
    return sampled[gives] if isinstance(sampled, Mapping) else sampled


def check_limits(method: Method, batch: Mapping[str, np.ndarray]) -> None:
    """Checks a batch on the host: inside a program a number outside of its table reads another row, or NaN.

    Raises:
      UserError: an entry of `method.limits` has a number outside of its range.
    """
    advice = {
        "label": "correct the labels, or set config.data.num_classes",
        "mask": "correct the masks, or set config.method.classes (of SPADE: those of its networks), or ignore for a "
        "number that is no class",
    }
    for name, count in method.limits.items():
        values = np.asarray(batch.get(name, 0))
        if name in method.exempt:
            values = values[values != method.exempt[name]]
        if values.size and (values.min() < 0 or values.max() >= count):
            wrong = int(values.min()) if values.min() < 0 else int(values.max())
            raise UserError(
                f"The data have {name} {wrong}, and {type(method).__name__} knows "
                f"{f'those in [0, {count})' if count else 'none'}: "
                f"{advice.get(name, 'use the tokenizer that belongs to the text network, or a larger vocabulary')}."
            )


def check_loaded(group: str, given: Tree, fresh: Tree) -> None:
    """Raises a UserError unless loaded weights have the names and shapes of fresh ones."""
    wrong = difference(given, fresh)
    if wrong:
        raise UserError(f"config.init_from.{group}: {wrong}.")


def difference(given: Tree, fresh: Tree) -> str:
    """Returns what is wrong with the names and shapes of loaded weights beside fresh ones; "" where nothing is."""

    def shapes(tree: Tree) -> Mapping[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}

    old, new = shapes(given), shapes(fresh)
    for name in new:
        if name not in old:
            return f"the loaded weights have no {name!r}, which the method needs"
        if tuple(old[name]) != tuple(new[name]):
            return (
                f"{name!r} has shape {tuple(old[name])} in the loaded weights and {tuple(new[name])} in the method; "
                "use the config that the weights were trained with"
            )
    for name in old:
        if name not in new:
            return f"the loaded weights have {name!r}, which the method lacks"
    return ""


def learned_groups(method: Method, stage: int | None = None) -> tuple[str, ...]:
    """Returns the names of the groups that the turns of a stage learn, each once; those of all stages for None."""
    stages = [own for _, own in method.stages] if stage is None else [stage]
    return tuple(dict.fromkeys(group for own in stages for turn in method.turns(own) for group in turn.groups))
