"""Makes one training step one jitted function: `update(state, frozen, batches) -> (state, metrics)`.

The methods of `_Step` stand in the order of a step. It prepares the batches; each turn computes its gradients, clips
them and updates its groups, unless something is not finite; then the parameters are averaged and the counters go up.
Turns, repeats and micro-batches are unrolled, since a loop over convolution gradients runs tens of times slower on a
CPU.

A lazy turn, whose `every` is above 1, is a program of its own in front of that function, so that the other turns are
compiled once, not again for each set of turns that may be due.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxgen.arrays import Batch, Memory, Metrics, Params
from jaxgen.data.corruptions import Corruption
from jaxgen.data.transforms import prepare
from jaxgen.data_shards import rows_sharded_as
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, State, Turn
from jaxgen.parallel.mesh import over_data, replicated
from jaxgen.runs.optim import Optimizer, clip_by_global_norm, global_norm
from jaxgen.runs.state import fold_name, seed_key
from jaxgen.runs.state_builder import StateBuilder


def draws(turns: Sequence[Turn]) -> int:
    """Returns the number of batches that a step draws from the data, whichever turns are due."""
    return max((turn.repeats for turn in turns), default=0)


def programs(turns: Sequence[Turn], step: int) -> tuple[tuple[Turn, ...], ...]:
    """Returns the turns of each program that runs at a step, in the order of the programs. The host decides this.

    The lazy turns that are due come first, each alone, in the method's order. The turns of every step follow together,
    in a program that ends the step.
    """
    lazy = ((turn,) for turn in turns if turn.every > 1 and step % turn.every == 0)
    return (*lazy, tuple(turn for turn in turns if turn.every == 1))


@dataclasses.dataclass(frozen=True)
class UpdateSettings:
    """Holds the settings of an update that do not depend on its turns."""

    seed: int  # random keys are folded from it, the step, the turn's `keys` and the repeat
    images_per_step: int  # what a step adds to `state.images`
    ema_decay: float = 0.0  # per step, with a warm-up; a state without averaged groups ignores it
    accumulate: int = 1  # micro-batches per update; gradients are their mean
    flip: bool = False  # images are flipped left to right, half of them at random
    crop: int = 0  # images are padded by this many pixels and cropped at random
    corruptions: Mapping[str, Corruption] = dataclasses.field(default_factory=dict)  # {entry: its corruption}
    undo_nonfinite: bool = True  # a turn whose loss or gradient is not finite changes nothing


def update_of(
    config: ConfigDict, builder: StateBuilder, stage: int, turns: Sequence[Turn], state: State
) -> jax.stages.Wrapped:
    """Makes one of the programs of a step, as `programs` gives them, for a run's config.

    Args:
      config: the run's config.
      builder: the builder of the run's states.
      stage: the stage that the turns belong to.
      turns: the program's turns.
      state: a state, or its shapes, with the shardings of the states to be updated.
    """
    settings = UpdateSettings(
        seed=config.seed,
        images_per_step=config.train.batch_size * draws(builder.method.turns(stage)),
        ema_decay=config.train.ema_decay,
        accumulate=config.train.accumulate,
        flip=config.data.flip,
        crop=config.data.crop,
        corruptions=builder.corruptions,
    )
    ends = all(turn.every == 1 for turn in turns)
    return make_update(turns, builder.optimizers, builder.mesh, settings, builder.shardings(state), ends)


def make_update(
    turns: Sequence[Turn],
    optimizers: Mapping[str, Optimizer],
    mesh: Mesh,
    settings: UpdateSettings,
    shardings: tuple[State, Params] | None = None,
    ends: bool = True,
) -> jax.stages.Wrapped:
    """Makes the jitted update of some turns: `update(state, frozen, batches) -> (state, metrics)`.

    `state` is donated and `frozen` is not. `batches` holds one batch of the loader for each repeat; repeat r of every
    turn uses batch r. The metrics are float32 scalars: `<turn>/loss`, `<turn>/<name>` for the loss's own metrics,
    `<turn>/grad_norm`, and `finite/<turn>/<group>`, which is 0 if the loss or that group's gradient was not finite, so
    that the turn's update was undone, and 1 otherwise.

    Args:
      turns: the turns, in order.
      optimizers: `{group: optimizer}`.
      mesh: the devices.
      settings: the settings of the update.
      shardings: the shardings of `state` and of `frozen`; None where both are replicated on every device.
      ends: whether the step ends with these turns, so that parameters are averaged and counters go up.
    """
    everywhere = replicated(mesh)
    of_state, of_frozen = shardings or (everywhere, everywhere)
    return jax.jit(
        _Step(tuple(turns), optimizers, mesh, settings, ends).update,
        donate_argnums=0,
        in_shardings=(of_state, of_frozen, over_data(mesh)),
        out_shardings=(of_state, everywhere),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    """Makes one step, or a lazy turn of it, in pure functions that are traced together."""

    turns: tuple[Turn, ...]
    optimizers: Mapping[str, Optimizer]
    mesh: Mesh
    settings: UpdateSettings
    ends: bool

    def update(self, state: State, frozen: Params, batches: tuple[Batch, ...]) -> tuple[State, Metrics]:
        """Takes the turns, and ends the step if it ends with them."""
        averaged = bool(state.ema)
        if not averaged:
            state = dataclasses.replace(state, ema=state.params)  # for losses that read it; it is not kept
        key = jax.random.fold_in(seed_key(self.settings.seed, "train"), state.step)
        prepared = [self.prepared(batch, key, number) for number, batch in enumerate(batches)]
        metrics: Metrics = {}
        for turn in self.turns:
            turn_key = fold_name(key, turn.keys or turn.name)
            for r in range(turn.repeats):
                state, new = self.take(turn, state, frozen, prepared[r], jax.random.fold_in(turn_key, r))
                for name, value in new.items():
                    # the numbers are those of the last repeat, but "finite" is 1 only if all repeats were finite
                    all_finite = name.startswith("finite/") and name in metrics
                    metrics[name] = jnp.minimum(metrics[name], value) if all_finite else value
        state = state if averaged else dataclasses.replace(state, ema={})
        return self.counted(state) if self.ends else state, metrics

    def prepared(self, batch: Batch, key: jax.Array, number: int) -> Batch:
        """Returns a batch as losses see it: float32 images in [-1, 1], flipped and cropped at random."""
        key = jax.random.fold_in(fold_name(key, "augment"), number)
        return prepare(batch, key, self.settings.flip, self.settings.crop, self.settings.corruptions)

    def take(self, turn: Turn, state: State, frozen: Params, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        """Runs one turn: its gradients, clipped by their norm over all its groups, and one update of each group."""
        loss, extra, gradients, memory = self.gradients(turn, state, frozen, batch, key)
        norms = {g: global_norm(gradients[g]) for g in turn.groups}
        norm = jnp.sqrt(sum(n**2 for n in norms.values()))
        metrics = {f"{turn.name}/loss": loss, f"{turn.name}/grad_norm": norm}
        metrics |= {f"{turn.name}/{k}": v for k, v in extra.items()}
        clipped = {g: clip_by_global_norm(gradients[g], norm, self.optimizers[g].clip_norm) for g in turn.groups}
        params, opt_state = dict(state.params), dict(state.opt_state)
        for g in turn.groups:
            params[g], opt_state[g] = self.optimizers[g].update(clipped[g], opt_state[g], params[g], state.images)
        new = dataclasses.replace(state, params=params, opt_state=opt_state, memory=memory)
        if self.settings.undo_nonfinite:
            finite = {g: jnp.isfinite(norms[g]) & jnp.isfinite(loss) for g in turn.groups}
            new = undo_unless_finite(turn, finite, new, state)
            metrics |= {f"finite/{turn.name}/{g}": ok for g, ok in finite.items()}
        return new, {k: jnp.asarray(v, jnp.float32) for k, v in metrics.items()}

    def gradients(
        self, turn: Turn, state: State, frozen: Params, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, Metrics, Params, Memory]:
        """Returns loss, metrics and gradients as means over the micro-batches, and the memory after the last one."""

        def loss(groups: Params, part: Batch, key: jax.Array, memory: Memory) -> LossResult:
            params = {**frozen, **state.params, **groups}
            value, (extra, changed) = turn.loss(params, part, key, dataclasses.replace(state, memory=memory))
            unknown = changed.keys() - memory.keys()
            if unknown:
                raise ValueError(f"turn {turn.name!r} updates memory {sorted(unknown)} that init did not make")
            check_memory(turn.name, changed, memory)
            return value, (extra, {**memory, **changed})

        count = self.settings.accumulate
        groups = {g: state.params[g] for g in turn.groups}
        parts = []
        memory = state.memory
        for i in range(count):
            part = _micro_batch(batch, i, count)
            part_key = jax.random.fold_in(key, i) if count > 1 else key
            with rows_sharded_as(over_data(self.mesh)):
                found, gradients = jax.value_and_grad(loss, has_aux=True)(groups, part, part_key, memory)
            value, (extra, memory) = found
            parts.append((value, extra, gradients))
        mean = jax.tree.map(lambda *xs: sum(xs) / len(xs), *parts) if count > 1 else parts[0]
        return *mean, memory

    def counted(self, state: State) -> State:
        """Ends the step: updates the EMA with the new parameters, and the counters."""
        updates = (state.images / self.settings.images_per_step).astype(jnp.float32)
        decay = jnp.minimum(self.settings.ema_decay, (1 + updates) / (10 + updates))
        ema = {
            g: jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state.ema[g], state.params[g]) for g in state.ema
        }
        images = state.images + self.settings.images_per_step
        return dataclasses.replace(state, step=state.step + 1, images=images, ema=ema)


def check_memory(turn: str, changed: Memory, memory: Memory) -> None:
    """Checks that a loss returns memory of the shapes that it was given.

    Raises:
      UserError: an entry has other shapes.
    """
    for name, new in changed.items():
        after, before = ([jnp.shape(x) for x in jax.tree.leaves(tree)] for tree in (new, memory[name]))
        if after != before:
            raise UserError(
                f"The turn {turn!r} returns memory[{name!r}] in the shapes {after}, where the state has {before}; "
                "memory must keep its shapes within a stage."
            )


def undo_unless_finite(turn: Turn, finite: Mapping[str, jax.Array], new: State, before: State) -> State:
    """Returns `new` if everything is finite, else the state `before` the turn, and counts undone updates in a row."""
    good = jnp.all(jnp.stack(list(finite.values())))
    kept = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, before)
    count = jnp.where(good, 0, before.nonfinite_count[turn.name] + 1)
    return kept.replace(nonfinite_count={**before.nonfinite_count, turn.name: count})


def _micro_batch(batch: Batch, index: int, count: int) -> Batch:
    """Returns every count-th example from `index` on, so that the rows of a device stay on it."""
    if count == 1:
        return batch
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:])[:, index], batch)
