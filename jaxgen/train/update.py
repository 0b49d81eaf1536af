"""The update: a step's due turns as one jitted function of (state, frozen, batches).

Gradients, clipping, optax per group, EMA, the guard against non-finite values, accumulation. Repeats and
micro-batches are unrolled: a loop over convolution gradients runs tens of times slower on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxgen.data.transforms import prepare
from jaxgen.data_shards import rows_sharded_as
from jaxgen.methods.base import Batch, Metrics, Params, State, Turn
from jaxgen.parallel.mesh import over_data, replicated
from jaxgen.runs.optim import Optimizer, clip_by_global_norm, global_norm
from jaxgen.runs.state import fold_name, seed_key

Update = Callable[[State, Params, tuple[Batch, ...]], tuple[State, Metrics]]


def draws(turns: tuple[Turn, ...]) -> int:
    """Fresh batches that a step takes from the data, whichever turns are due."""
    return max(turn.repeats for turn in turns)


def due(turns: tuple[Turn, ...], step: int) -> tuple[Turn, ...]:
    """The turns that run at a step; decided on the host, one compiled update for each set."""
    return tuple(turn for turn in turns if step % turn.every == 0)


def make_update(
    turns: tuple[Turn, ...],
    optimizers: dict[str, Optimizer],
    mesh: Mesh,
    *,
    seed: int,
    images_per_step: int,
    ema_decay: float = 0.0,
    accumulate: int = 1,
    flip: bool = False,
    crop: int = 0,
    check: bool = True,
    shardings: tuple[Any, Any] | None = None,
) -> Update:
    """The jitted update of one set of due turns: `update(state, frozen, batches) -> (state, metrics)`.

    `state` is donated; `frozen` is not. `batches` holds one host-layout batch for each draw; repeat r of every turn
    uses batch r. Metrics are float32 scalars: `<turn>/loss`, `<turn>/<name>` of the loss's own,
    `<turn>/grad_norm`, and `finite/<turn>/<group>`, 1 unless the update of that turn was rolled back because
    the loss or that group's gradient was not finite.

    Args:
      seed: random keys are folded from it, the step, the turn's name and the repeat.
      images_per_step: what a step adds to `state.images`.
      accumulate: micro-batches per update; gradients are their mean.
      check: roll back non-finite updates.
      shardings: of `state` and `frozen`, where they are not whole on every device.
    """

    def update(state: State, frozen: Params, batches: tuple[Batch, ...]) -> tuple[State, Metrics]:
        key = jax.random.fold_in(seed_key(seed, "train"), state.step)
        prepared = [
            prepare(batch, jax.random.fold_in(fold_name(key, "augment"), r), flip, crop)
            for r, batch in enumerate(batches)
        ]
        metrics: Metrics = {}
        for turn in turns:
            turn_key = fold_name(key, turn.name)
            for r in range(turn.repeats):
                state, new = _take(turn, state, frozen, prepared[r], jax.random.fold_in(turn_key, r))
                for name, value in new.items():
                    low = name.startswith("finite/") and name in metrics
                    metrics[name] = jnp.minimum(metrics[name], value) if low else value
        return _finish(state), metrics

    def _take(turn: Turn, state: State, frozen: Params, batch: Batch, key: jax.Array) -> tuple[State, Metrics]:
        groups = {g: state.params[g] for g in turn.groups}
        total, extra, gradients, memory = _gradients(turn, groups, state, frozen, batch, key)
        norms = {g: global_norm(gradients[g]) for g in turn.groups}
        norm = jnp.sqrt(sum(n**2 for n in norms.values()))
        metrics = {f"{turn.name}/loss": total, f"{turn.name}/grad_norm": norm}
        metrics |= {f"{turn.name}/{k}": v for k, v in extra.items()}
        clipped = {g: clip_by_global_norm(gradients[g], norm, optimizers[g].clip_norm) for g in turn.groups}
        params, opt_state = dict(state.params), dict(state.opt_state)
        for g in turn.groups:
            params[g], opt_state[g] = optimizers[g].update(clipped[g], opt_state[g], params[g], state.images)
        new = state.replace(params=params, opt_state=opt_state, memory=memory)
        if check:
            finite = {g: jnp.isfinite(norms[g]) & jnp.isfinite(total) for g in turn.groups}
            good = jnp.all(jnp.stack(list(finite.values())))
            new = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, state)
            bad = jnp.where(good, 0, state.nonfinite_count[turn.name] + 1)
            new = new.replace(nonfinite_count={**state.nonfinite_count, turn.name: bad})
            metrics |= {f"finite/{turn.name}/{g}": ok for g, ok in finite.items()}
        return new, {k: jnp.asarray(v, jnp.float32) for k, v in metrics.items()}

    def _gradients(turn: Turn, groups: Params, state: State, frozen: Params, batch: Batch, key: jax.Array):
        """Loss, metrics and gradients as means over the micro-batches; memory as the last one left it."""

        def loss(groups: Params, part: Batch, key: jax.Array, memory: dict[str, Any]):
            params = {**frozen, **state.params, **groups}
            total, (extra, changed) = turn.loss(params, part, key, state.replace(memory=memory))
            unknown = changed.keys() - memory.keys()
            if unknown:
                raise ValueError(f"turn {turn.name!r} updates memory {sorted(unknown)} that init did not make")
            return total, (extra, {**memory, **changed})

        parts = []
        memory = state.memory
        for i in range(accumulate):
            part = _micro_batch(batch, i, accumulate)
            part_key = jax.random.fold_in(key, i) if accumulate > 1 else key
            with rows_sharded_as(over_data(mesh)):
                value, gradients = jax.value_and_grad(loss, has_aux=True)(groups, part, part_key, memory)
            total, (extra, memory) = value
            parts.append((total, extra, gradients))
        mean = jax.tree.map(lambda *xs: sum(xs) / len(xs), *parts) if accumulate > 1 else parts[0]
        return *mean, memory

    def _finish(state: State) -> State:
        updates = (state.images / images_per_step).astype(jnp.float32)
        decay = jnp.minimum(ema_decay, (1 + updates) / (10 + updates))
        ema = {
            g: jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state.ema[g], state.params[g])
            for g in state.ema
        }
        return state.replace(step=state.step + 1, images=state.images + images_per_step, ema=ema)

    whole = replicated(mesh)
    of_state, of_frozen = shardings or (whole, whole)
    return jax.jit(
        update,
        donate_argnums=0,
        in_shardings=(of_state, of_frozen, over_data(mesh)),
        out_shardings=(of_state, whole),
    )


def _micro_batch(batch: Batch, index: int, count: int) -> Batch:
    """Every count-th example from `index` on: each device keeps its own rows."""
    if count == 1:
        return batch
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:])[:, index], batch)
