"""Tunes a trained method by grafts: small parts that learn while everything else is frozen.

Textual inversion, LoRA, ControlNet and their combinations are this method with other grafts (`jaxgen.methods.grafts`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.errors import UserError, nearest
from jaxgen.methods.base import Loss, LossResult, LossState, Method, Model, Sampled, Turn, learned_groups
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.grafts.base import Graft, in_order

PRIOR = "prior_"  # how the entries of the source `config.data.extra.prior` begin


@dataclasses.dataclass(frozen=True)
class Tuned(Method):
    """Runs each of the trained method's turns, but the grafts learn in place of its groups.

    A graft's name is its group. Everything but the grafts is frozen, and a checkpoint holds the grafts alone. Losses,
    samples, panels and scores are those of the trained method, on parameters with the grafts put on.

    Where batches have `prior_<entry>`, from the source `config.data.extra.prior`, the loss of these examples is added,
    times `prior_weight`: the prior preservation of DreamBooth (Ruiz et al. 2023, section 3.3) and the regularisation
    of Custom Diffusion (Kumari et al. 2023, section 3.3).

    `label_dropout` takes the place of the trained method's. A control learns sooner to read its hint where texts are
    often missing: half of them in ControlNet (Zhang et al. 2023, section 3.3).

    Raises:
      UserError: there are no grafts, or one has the name of a group of the trained method, or changes none of its
        groups; or the prior's weight is negative, or there is nothing to drop.
    """

    trained: Method  # from `config.init_from.pretrained`
    grafts: Mapping[str, Graft]
    prior_weight: float | None = None  # of the source `prior`; None takes 1
    label_dropout: float | None = None  # share of examples without their text or label; None: as it was trained

    def __post_init__(self) -> None:
        if self.prior_weight is not None and self.prior_weight < 0:
            raise UserError(f"config.method.prior_weight is {self.prior_weight:g}; it is at least 0.")
        if self.label_dropout is not None:
            if not isinstance(self.trained, DDPM):
                raise UserError(
                    f"config.method.label_dropout drops what a diffusion model is told, and "
                    f"{type(self.trained).__name__} is none; leave it out."
                )
            object.__setattr__(self, "trained", dataclasses.replace(self.trained, label_dropout=self.label_dropout))
        if not self.grafts:
            raise UserError("config.method.grafts is empty; name a graft, such as grafts.lora.name='low_rank'.")
        groups = groups_of(self.trained)
        for name, graft in self.grafts.items():
            if name in groups:
                raise UserError(
                    f"config.method.grafts.{name}: the trained method has a group of this name; use another name."
                )
            if name in ("pretrained", "dtype"):
                raise UserError(f"config.method.grafts.{name}: init_from has a key of this name; use another name.")
            if graft.group not in groups:
                raise UserError(
                    f"config.method.grafts.{name}.group={graft.group!r}: the trained method has no such group; "
                    f"{nearest(graft.group, groups)}"
                )

    @property
    def method(self) -> Method:
        """Returns the trained method as it takes parameters with all grafts on them."""
        method = self.trained
        for _, graft in in_order(self.grafts):
            method = graft.onto(method)
        return method

    def on(self, params: Params) -> Params:
        """Returns the trained method's parameters with all grafts put on, from those of every group."""
        found = {group: value for group, value in params.items() if group not in self.grafts}
        for name, graft in in_order(self.grafts):
            found = graft.grafted(found, params[name])
        return found

    @property
    def words(self) -> dict[str, tuple[int, ...]]:
        """Returns `{word: its token ids}` of the new words of all grafts.

        Raises:
          UserError: two grafts teach the same word.
        """
        return words_of(self.trained, self.grafts)

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        return ((0, self.trained.stages[-1][1]),)

    @property
    def learned(self) -> tuple[str, ...]:
        """Returns the names of the grafts that learn."""
        return tuple(name for name, graft in in_order(self.grafts) if graft.learns)

    @property
    def required_groups(self) -> tuple[str, ...]:
        frozen = tuple(name for name, graft in in_order(self.grafts) if not graft.learns)
        return tuple(dict.fromkeys((*groups_of(self.trained), *frozen)))

    @property
    def conditions(self) -> tuple[str, ...]:
        return self.method.conditions

    @property
    def ignored(self) -> Mapping[str, str]:
        return self.method.ignored

    @property
    def limits(self) -> Mapping[str, int]:
        return self.method.limits

    @property
    def panel_inputs(self) -> tuple[str, ...]:
        return self.method.panel_inputs

    @property
    def columns(self) -> Mapping[str, int]:
        return self.method.columns

    @property
    def entries(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        return self.method.entries

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        if self.prior_weight is not None and PRIOR + "image" not in batch:
            raise UserError(
                f"config.method.prior_weight={self.prior_weight:g} weights the images of config.data.extra.prior, and "
                "there are none: add that source, or leave prior_weight out."
            )
        parts = self._parts(key, given, batch)
        self._with_prior(batch)  # now, so that an entry that is missing is named before the first step
        return {name: parts[name] for name in self.learned}, dict(memory)

    def untrained(self, key: Array, batch: Batch) -> tuple[Params, Memory]:
        given, memory = self.trained.untrained(key, batch)
        learned, carried = self.trained.init(key, batch, self.trained.stages[0][1], given, {}, memory)
        found = {**given, **learned}
        frozen = {name: part for name, part in self._parts(key, found, batch).items() if name not in self.learned}
        return {**found, **frozen}, {**memory, **carried}

    def _parts(self, key: Array, given: Params, batch: Batch) -> Params:
        """Returns the parameters of all grafts at the start: those that are given, and fresh ones of the others."""
        method, on = self.trained, {group: value for group, value in given.items() if group not in self.grafts}
        found: Params = {}
        for number, (name, graft) in enumerate(in_order(self.grafts)):
            if name in given:
                found[name] = graft.loaded(name, given[name], method, on, batch)
            else:
                found[name] = graft.start(name, jax.random.fold_in(key, number), method, on, batch)
            method, on = graft.onto(method), graft.grafted(on, found[name])
        return found

    def turns(self, stage: int) -> tuple[Turn, ...]:
        """Returns the trained method's turns in which a graft learns.

        Where there are several, as in a GAN, a graft learns in those that train its group.
        """
        turns = self.method.turns(stage)
        found = []
        for turn in turns:
            groups = tuple(g for g in self.learned if len(turns) == 1 or self.grafts[g].group in turn.groups)
            if groups:
                found.append(dataclasses.replace(turn, groups=groups, loss=self._loss(turn)))
        return tuple(found)

    def _loss(self, turn: Turn) -> Loss:
        def loss(params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
            return turn.loss(self.on(params), self._with_prior(batch), key, state)

        return loss

    def _with_prior(self, batch: Batch) -> Batch:
        """Returns a batch with the examples of the source `prior` after its own, each behind the one of its row.

        The mean of the weighted losses is the mean over the batch's own examples plus `prior_weight` times the mean
        over the prior's.
        """
        if PRIOR + "image" not in batch:
            return batch
        if not isinstance(self.trained, DDPM):
            raise UserError(
                f"config.data.extra.prior is for diffusion models, and {type(self.trained).__name__} is none: leave it "
                "out, or give the source another name."
            )
        names = [name for name in ("image", *self.conditions, "weight") if name in batch]
        missing = next((name for name in names if name != "weight" and PRIOR + name not in batch), None)
        if missing is not None:
            raise UserError(
                f"The model reads {missing!r}, and the source config.data.extra.prior does not give it: choose "
                "one that does, or leave the prior or the graft that reads it out."
            )
        count = len(batch["image"])
        fine = {**batch, "weight": batch.get("weight", jnp.ones(count)), PRIOR + "weight": jnp.ones(count)}
        fine["weight"], fine[PRIOR + "weight"] = 2 * fine["weight"], 2 * self._prior * fine[PRIOR + "weight"]
        found = {}
        for name in dict.fromkeys((*names, "weight")):
            own, prior = fine[name], fine[PRIOR + name]
            if own.shape != prior.shape:
                raise UserError(
                    f"The entry {name!r} has the shape {own.shape[1:]}, and that of config.data.extra.prior "
                    f"{prior.shape[1:]}: give both sources the same channels and texts of one tokenizer."
                )
            found[name] = jnp.stack([own, prior], axis=1).reshape(2 * count, *own.shape[1:])
        return found

    @property
    def _prior(self) -> float:
        return 1.0 if self.prior_weight is None else self.prior_weight

    def _model(self, model: Model) -> Model:
        return dataclasses.replace(model, params=self.on(model.params))

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Sampled:
        return self.method.sample(self._model(model), keys, batch)

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        return self.method.panels(self._model(model), keys, batch)

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        return self.method.scores(self._model(model), keys, batch)

    def summary(self, scores: Mapping[str, np.ndarray]) -> dict[str, float]:
        return self.method.summary(scores)

    def better(self, score: str) -> str | None:
        return self.method.better(score)

    @property
    def has_sampler(self) -> bool:
        return self.method.has_sampler

    @property
    def gives(self) -> str:
        return self.method.gives


def words_of(trained: Method, grafts: Mapping[str, Graft]) -> dict[str, tuple[int, ...]]:
    """Returns `{word: its token ids}` of the new words of grafts on a method.

    Raises:
      UserError: two grafts teach the same word.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, graft in in_order(grafts):
        for word, ids in graft.words(trained).items():
            if word in found:
                raise UserError(f"The word {word!r} of the graft {name!r} is another graft's, too; use two words.")
            found[word] = ids
        trained = graft.onto(trained)
    return found


def groups_of(method: Method) -> tuple[str, ...]:
    """Returns the names of all parameter groups of a method: those that it is given, and those that it learns."""
    return tuple(dict.fromkeys((*method.required_groups, *learned_groups(method))))
