"""Makes optimisers from the config: optax by name, learning rates as functions of the images seen."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxgen.adversarial.regularisers import clip_weights
from jaxgen.errors import UserError, first_line, nearest
from jaxgen.number_types import is_type_key, number_type

# keys of the section that are jaxgen's; the others are arguments of the optax function
_OWN = (
    "name", "learning_rate", "warmup_images", "constant_images", "decay", "decay_images", "restart_images", "clip_norm",
    "clip_weights",
)  # fmt: skip

# parameters that every optimiser is tried on before it is used; nothing is computed
_EXAMPLE = {"kernel": jax.ShapeDtypeStruct((2, 2), "float32")}

LearningRate = Callable[[jax.Array], jax.Array]


class Optimizer:
    """Holds one group's optax transformation at learning rate 1, and its learning rate by the images seen.

    The rate depends on `state.images` and not on the optimiser's own count, which grows faster for a discriminator with
    several repeats. optax's updates are proportional to the rate, so the rate can be applied after them.

    Attributes:
      ends: the number of images from which on the rate is 0; None where it does not fall.
    """

    def __init__(self, section: Mapping[str, Any], total_images: int, path: str):
        self.transform = _transform(section, path)
        self.learning_rate = learning_rate(section, total_images, path)
        self._rate = jax.jit(self.learning_rate)
        decays = section.get("decay", "constant") != "constant" and not section.get("restart_images", 0)
        self.ends = int(section.get("decay_images", 0) or total_images) if decays else None
        self.clip_norm = float(section.get("clip_norm", 0.0))
        self.clip_weights = float(section.get("clip_weights", 0.0))
        if self.clip_norm < 0 or self.clip_weights < 0:
            raise UserError(f"{path}: clip_norm and clip_weights must not be negative; 0 switches them off.")

    def init(self, params: optax.Params) -> optax.OptState:
        """Returns the state before the first update of one group's parameters."""
        return self.transform.init(params)

    def rate_at(self, images: int) -> float:
        """Returns the learning rate of an update that begins when `images` training images have been seen."""
        return float(self._rate(jnp.asarray(images, jnp.uint32)))

    def update(
        self, gradients: optax.Updates, opt_state: optax.OptState, params: optax.Params, images: jax.Array
    ) -> tuple[optax.Params, optax.OptState]:
        """Returns one group's new parameters and optimiser state.

        Args:
          gradients: the gradients of the parameters.
          opt_state: the optimiser's state.
          params: the parameters.
          images: the number of training images seen, which decides the learning rate.
        """
        updates, opt_state = self.transform.update(gradients, opt_state, params)
        rate = self.learning_rate(images)
        new = jax.tree.map(lambda p, u: p + (rate * u).astype(p.dtype), params, updates)
        if self.clip_weights:
            new = clip_weights(new, self.clip_weights)
        return new, opt_state


def optimizers(config: ConfigDict, groups: tuple[str, ...]) -> dict[str, Optimizer]:
    """Returns one optimiser per group: `config.optimizer`, overridden by `config.optimizers.<group>`.

    Raises:
      UserError: for an unknown optimiser, key or group.
    """
    for group in config.optimizers:
        if group not in groups:
            raise UserError(f"config.optimizers.{group}: no such group learns; {nearest(group, groups)}")
    result = {}
    for group in groups:
        own = config.optimizers.get(group, {})
        base = dict(config.optimizer.items())
        if "name" in own and own["name"] != base["name"]:  # another optimiser has other arguments
            base = {k: v for k, v in base.items() if k in _OWN}
        path = f"config.optimizers.{group}" if own else "config.optimizer"
        result[group] = Optimizer({**base, **dict(own.items())}, config.train.total_images, path)
    return result


def ends_before(optimizers: Mapping[str, Optimizer], total_images: int) -> str:
    """Says which groups stop learning before the end of the run; "" if none does."""
    early = {group: made.ends for group, made in optimizers.items() if made.ends is not None}
    early = {group: end for group, end in early.items() if end < total_images}
    return "; ".join(
        f"the learning rate of group {group!r} is 0 from {end} images on (decay_images), and the run ends at "
        f"{total_images}: decay_images=0 lets it follow the length of the run"
        for group, end in early.items()
    )


def learning_rate(section: Mapping[str, Any], total_images: int, path: str) -> LearningRate:
    """Returns the learning rate as a function of the images seen.

    It rises linearly over `warmup_images` and keeps its value for `constant_images`; then it stays there, or falls as a
    cosine or a line to 0 at `decay_images`. A `decay_images` of 0 stands for `total_images`, whichever that is when the
    run is begun, resumed or extended. With `restart_images` all of this begins again after every so many images
    (Loshchilov & Hutter 2017), as for a method that grows; `decay_images` is then 0, and the rate falls until it begins
    again.

    Raises:
      UserError: the decay is unknown, or a number does not fit.
    """
    base, restart = float(section["learning_rate"]), int(section.get("restart_images", 0))
    warmup, end = float(section.get("warmup_images", 0)), float(section.get("decay_images", 0) or total_images)
    start = warmup + float(section.get("constant_images", 0))  # of the decay
    decay = section.get("decay", "constant")
    if decay not in ("constant", "cosine", "linear"):
        raise UserError(f"{path}.decay={decay!r} is unknown; {nearest(decay, ('constant', 'cosine', 'linear'))}")
    if base < 0 or warmup < 0 or end < 0 or start < warmup:
        raise UserError(f"{path}: learning_rate, warmup_images, constant_images and decay_images must not be negative.")
    if restart < 0 or restart and section.get("decay_images", 0):
        raise UserError(
            f"{path}.restart_images={restart} must not be negative, and with it decay_images is 0, since the rate "
            "falls until it begins again; set it to 0 for a rate that falls once."
        )
    end = restart or end
    if start > warmup and decay == "constant":
        raise UserError(f"{path}.constant_images={start - warmup:g} says when the decay begins: set {path}.decay too.")
    if start > warmup and start >= end:
        raise UserError(
            f"{path}: the decay begins at image {start:g} (warmup_images + constant_images) and ends at {end:g}; it "
            "must end later."
        )

    def rate(images: jax.Array) -> jax.Array:
        images = jnp.asarray(images, jnp.uint32) % restart if restart else images
        images = jnp.asarray(images, jnp.float32)
        ramp = jnp.minimum((images + 1) / warmup, 1.0) if warmup else 1.0
        done = jnp.clip((images - start) / max(end - start, 1.0), 0.0, 1.0)
        falls: dict[str, jax.Array | float] = {
            "constant": 1.0,
            "linear": 1 - done,
            "cosine": 0.5 * (1 + jnp.cos(jnp.pi * done)),
        }
        return jnp.asarray(base * ramp * falls[decay], jnp.float32)

    return rate


def _transform(section: Mapping[str, Any], path: str) -> optax.GradientTransformation:
    """Returns the section's optax transformation at learning rate 1.

    Raises:
      UserError: for a name that is no optimiser of optax or one that training cannot use, and for an argument that it
        does not have or a value that it does not take.
    """
    name = section["name"]
    make = getattr(optax, name, None) if isinstance(name, str) and not name.startswith("_") else None
    if make is None or not _is_optimizer(make):
        raise UserError(f"{path}.name={name!r} is unknown; {nearest(name, optimizer_names())}")
    arguments = {k: v for k, v in section.items() if k not in _OWN}
    allowed = inspect.signature(make).parameters
    for key in arguments:
        if key not in allowed:
            raise UserError(f"{path}.{key} does not exist for {name!r}; {nearest(key, [*allowed, *_OWN])}")
    types = {k: number_type(v, f"{path}.{k}") for k, v in arguments.items() if v is not None and is_type_key(k)}
    try:
        transform = make(learning_rate=1.0, **{**arguments, **types})
        state = jax.eval_shape(transform.init, _EXAMPLE)
        jax.eval_shape(transform.update, _EXAMPLE, state, _EXAMPLE)
    except (TypeError, ValueError) as error:
        if "required keyword-only argument" in str(error):  # of `update`, such as lbfgs's loss
            raise UserError(f"{path}.name={name!r} needs more than gradients; use another optimiser.") from error
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no arguments"
        raise UserError(f"{path}: optax cannot make {name} with {given} ({first_line(error)}); correct it.") from error
    if any(jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in jax.tree.leaves(state)):
        raise UserError(
            f"{path}.name={name!r} keeps a random key, which checkpoints do not hold; use another optimiser."
        )
    return transform


@functools.cache
def optimizer_names() -> list[str]:
    """Returns the names of optax's optimisers that a config may give, without those that training cannot use."""
    names = [name for name in dir(optax) if not name.startswith("_") and _is_optimizer(getattr(optax, name))]
    return [name for name in names if _is_usable(name)]


def _is_usable(name: str) -> bool:
    """Returns whether training can use an optimiser with its defaults; True where it has none for an argument."""
    needed = inspect.signature(getattr(optax, name)).parameters.values()
    if any(p.default is p.empty and p.name != "learning_rate" for p in needed if p.kind is not p.VAR_KEYWORD):
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optax warns of what it will require
            _transform({"name": name}, "config.optimizer")
    except UserError:
        return False
    return True


def _is_optimizer(function: object) -> bool:
    """Returns whether this is one of optax's own functions that take a learning rate."""
    if not inspect.isfunction(function) or function.__module__.partition(".")[0] != "optax":
        return False
    return "learning_rate" in inspect.signature(function).parameters


def global_norm(tree: optax.Updates) -> jax.Array:
    """Returns the Euclidean norm of all leaves taken together."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)))


def clip_by_global_norm(gradients: optax.Updates, norm: jax.Array, limit: float) -> optax.Updates:
    """Scales gradients so that their global norm is at most `limit`; 0 leaves them alone."""
    if not limit:
        return gradients
    scale = jnp.minimum(1.0, limit / jnp.maximum(norm, 1e-12))
    return jax.tree.map(lambda g: g * scale, gradients)
