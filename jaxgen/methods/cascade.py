"""Samples trained models one behind the other: what a stage gives is what the next one reads.

Cascaded diffusion models (Ho et al. 2022), GLIDE, Imagen and unCLIP are such chains: a base model, or a prior and a
decoder, and upsamplers. Each stage is a run of its own, trained by its own config; a chain only samples.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch, Entries, Memory, Params, to_uint8
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model, Sampled, Turn, main_of

ACROSS = 4  # samples in a row of the panel
Entry = tuple[tuple[int, ...], DTypeLike]  # shape without the batch axis, and dtype


@dataclasses.dataclass(frozen=True)
class ChainStage:
    """Holds one stage of a chain.

    Attributes:
      method: the run's method.
      name: the run, for messages.
      image_shape: `(H, W, C)` of the images that it learned from.
      entries: shapes and types of the entries that it reads.
      made: those that its own corruptions made of its images, so that no data have them.
      entry: the entry that takes what the stage before gives; "" for the one that fits.
    """

    method: Method
    name: str
    image_shape: tuple[int, int, int]
    entries: Mapping[str, Entry]
    made: tuple[str, ...] = ()
    entry: str = ""


@dataclasses.dataclass(frozen=True)
class Cascade(Method):
    """Samples each stage for what the stage before gives, and for what a chain is asked for: prompts, labels, pictures.

    A stage that follows images reads them as its `condition`, or as its only other picture, in the size that it learned
    with; other outputs are read as the entry of their name (`embedding`, `tokens`). Labels, tokens and all else that a
    stage reads come from outside, the same for every stage. Parameters of stage i are the groups `<i>/<group>`.

    The runs are `config.init_from.pretrained`, a tuple of workdirs (`jaxgen.runs.chains.stages`).

    Attributes:
      chain: the stages, in the order in which they sample.
      overrides: `{"stage_<i>": {"sampler": ..., "guidance": ..., "parts": ..., "entry": ...}}`, where each is optional:
        keys that change that stage's own sampler, guidance and conditions (such as the noise that is added to a low
        resolution), and the entry that takes what the stage before gives.
      trust: packages beside jaxgen whose classes the configs that the stages stored may name.

    Raises:
      UserError: there are fewer than two stages, or a stage cannot read what the one before gives, or reads what nobody
        gives.
    """

    chain: tuple[ChainStage, ...]
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    trust: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.chain) < 2:
            raise UserError(f"A chain has two stages or more, not {len(self.chain)}.")
        for number in range(len(self.chain)):
            self._check(number)
        shapes: dict[str, tuple[int, tuple[int, ...]]] = {}
        for number, part in enumerate(self.chain):
            for name in self.outside(number):
                if name not in part.entries:
                    continue
                shape = tuple(part.entries[name][0])
                other, known = shapes.setdefault(name, (number, shape))
                if known != shape:
                    raise UserError(
                        f"{self.told(other)} reads {name!r} of shape {known}, and {self.told(number)} of shape "
                        f"{shape}; a chain gives both the same, so they have to be trained alike."
                    )

    def told(self, number: int) -> str:
        """Returns a stage's number and run, for messages."""
        return f"stage {number} ({self.chain[number].name})"

    def link(self, number: int) -> str:
        """Returns the entry of a stage that takes what the stage before gives; "" for the first one.

        Raises:
          UserError: no entry fits, or several do.
        """
        if not number:
            return ""
        part, gives = self.chain[number], self.chain[number - 1].method.gives
        reads = part.method.conditions
        if part.entry:
            known = [part.entry] if part.entry in reads else []
        elif gives == "image":
            known = [name for name in reads if _is_picture(part.entries.get(name))]
            known = ["condition"] if "condition" in known else known
        else:
            known = [name for name in reads if name == gives]
        if len(known) == 1:
            return known[0]
        what = f"{self.told(number - 1)} gives {gives if gives == 'tokens' else f'an {gives}'}"
        if known:
            raise UserError(
                f"{what}, and {self.told(number)} reads several pictures ({', '.join(known)}): say which one it is in "
                f"config.method.overrides.stage_{number}.entry."
            )
        wanted = f" as {part.entry!r}" if part.entry else ""
        raise UserError(
            f"{what}, which {self.told(number)} does not read{wanted}: it reads {', '.join(reads) or 'nothing'}."
        )

    def outside(self, number: int) -> tuple[str, ...]:
        """Returns the entries that a stage reads and that do not come from the stage before."""
        return tuple(name for name in self.chain[number].method.conditions if name != self.link(number))

    def _check(self, number: int) -> None:
        part = self.chain[number]
        if not part.method.has_sampler:
            raise UserError(f"{self.told(number)} has no sampler, so that it cannot be part of a chain.")
        link = self.link(number)
        lost = [name for name in self.outside(number) if number and name in part.made]
        if lost:
            raise UserError(
                f"{self.told(number)} reads {lost[0]!r}, which its corruptions made of its training images, and which "
                "no stage of the chain gives."
            )
        if number and self.chain[number - 1].method.gives == "image" and link in part.entries:
            before, wanted = self.chain[number - 1].image_shape, part.entries[link][0]
            if before[2] != wanted[2] or before[0] * wanted[1] != before[1] * wanted[0]:
                sizes = ["x".join(map(str, shape)) for shape in (before, wanted)]
                raise UserError(
                    f"{self.told(number - 1)} gives images of {sizes[0]}, and {self.told(number)} reads {link!r} of "
                    f"{sizes[1]}: the channels and the ratio of the sides have to be equal."
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.chain[-1].image_shape

    @property
    def gives(self) -> str:
        return self.chain[-1].method.gives

    @property
    def conditions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for i in range(len(self.chain)) for name in self.outside(i)))

    @property
    def entries(self) -> Mapping[str, Entry]:
        return {n: p.entries[n] for i, p in enumerate(self.chain) for n in self.outside(i) if n in p.entries}

    @property
    def ignored(self) -> Mapping[str, str]:
        """Returns the entries that every stage which reads them ignores."""
        reading = {name: [i for i in range(len(self.chain)) if name in self.outside(i)] for name in self.conditions}
        every = {name: [self.chain[i].method.ignored for i in stages] for name, stages in reading.items()}
        return {name: found[0][name] for name, found in every.items() if all(name in one for one in found)}

    @property
    def limits(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        for part in self.chain:
            for name, count in part.method.limits.items():
                found[name] = min(count, found.get(name, count))
        return found

    @property
    def required_groups(self) -> tuple[str, ...]:
        return tuple(f"{i}/{group}" for i, part in enumerate(self.chain) for group in part.method.required_groups)

    @property
    def columns(self) -> Mapping[str, int]:
        return {"stages": ACROSS * len(self.chain)}

    @property
    def guidance(self) -> Any:
        """Returns the guidance of the first stage that leads its samples away from a text; None where none does."""
        texts = (p for i, p in enumerate(self.chain) if "tokens" in self.outside(i))
        found = (getattr(getattr(p.method, "method", p.method), "guidance", None) for p in texts)
        return next((one for one in found if one is not None and "null" in one.reads), None)

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        return _does_not_train()

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return _does_not_train()

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Sampled:
        """Returns what the last stage gives, and as `stage_<i>` what the others give; their images are uint8."""
        *before, last = self.drawn(model, keys, batch)
        more = {f"stage_{i}": self._levels(i, found) for i, found in enumerate(before)}
        return {self.gives: last, **more}

    def drawn(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> list[Array]:
        """Returns what each stage gives.

        Raises:
          UserError: an entry has another shape than a stage learned with.
        """
        found: list[Array] = []
        for number, part in enumerate(self.chain):
            own = {name: batch[name] for name in self.outside(number)}
            if "tokens" in own and "null_tokens" in batch:
                own["null_tokens"] = batch["null_tokens"]
            for name, values in own.items():
                self._check_shape(number, name, values)
            if number:
                own[self.link(number)] = self._given_on(number, found[-1])
            drawn = part.method.sample(self._model(model, number), _keys_of(keys, number), Entries(own))
            found.append(main_of(drawn, part.method.gives))
        return found

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns the images of all stages beside each other, each enlarged to the largest."""
        drawn = self.drawn(model, keys, batch)
        images = [x for x, part in zip(drawn, self.chain, strict=True) if part.method.gives == "image"]
        if len(images) < len(self.chain):
            return {}
        sizes = zip(*(x.shape[1:] for x in images), strict=True)
        height, width, channels = (max(size) for size in sizes)
        cells = [
            jnp.broadcast_to(
                jax.image.resize(x, (len(x), height, width, x.shape[3]), "nearest"), (len(x), height, width, channels)
            )
            for x in images
        ]
        return {"stages": jnp.stack(cells, axis=1).reshape(-1, height, width, channels)}

    def _model(self, model: Model, number: int) -> Model:
        """Returns the model of one stage, at the end of its training."""
        params, memory = (
            {name.removeprefix(f"{number}/"): value for name, value in tree.items() if name.startswith(f"{number}/")}
            for tree in (model.params, model.memory)
        )
        return Model(params, memory, self.chain[number].method.stages[-1][1])

    def _given_on(self, number: int, found: Array) -> Array:
        """Returns what a stage reads of what the stage before gave: images in [-1, 1], of the size that it reads."""
        link, gives = self.link(number), self.chain[number - 1].method.gives
        if gives == "image":
            found = jnp.clip(found, -1, 1)
            shape = self.chain[number].entries[link][0]
            if found.shape[1:] != tuple(shape):
                found = jax.image.resize(found, (len(found), *shape), "linear")
        else:
            self._check_shape(number, link, found)
        return found

    def _check_shape(self, number: int, name: str, values: Array) -> None:
        wanted = self.chain[number].entries.get(name)
        if wanted is not None and values.shape[1:] != tuple(wanted[0]):
            raise UserError(
                f"{self.told(number)} reads {name!r} of shape {tuple(wanted[0])}, and is given {values.shape[1:]}: "
                "use the data and the corruptions that it was trained with."
            )

    def _levels(self, number: int, found: Array) -> Array:
        if self.chain[number].method.gives not in ("image", "video"):
            return found
        return to_uint8(found)


def fitted(before: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """Returns a sentence's part that says how images are fitted to the size that a stage reads; "" for equal sizes."""
    if before == wanted:
        return ""
    how = "made smaller" if math.prod(before) > math.prod(wanted) else "enlarged"
    return f"{how}, from {before[0]}x{before[1]} to {wanted[0]}x{wanted[1]}"


def _is_picture(entry: Entry | None) -> bool:
    return entry is not None and len(entry[0]) == 3 and np.dtype(entry[1]) in (np.dtype(np.uint8), np.dtype(np.float32))


def _keys_of(keys: Array, number: int) -> Array:
    """Returns the keys of a stage: those of the samples for the first one, so that it draws what its run draws."""
    if not number:
        return keys
    root = jax.vmap(lambda key: jax.random.fold_in(key, zlib.crc32(b"cascade")))(keys)
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(root)


def _does_not_train() -> NoReturn:
    raise UserError(
        "a cascade does not train: train each stage by its own config, and use --mode=sample or --mode=evaluate."
    )
