"""Holds the object that the functions of this room take: a trained style-based generator, taken apart at w."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Float, Int, Key

from jaxgen.arrays import Array, Tree
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model
from jaxgen.methods.gans.stylegan2 import StyleGAN2
from jaxgen.networks.stylegan.latent_generator import LatentGenerator, Noise
from jaxgen.sampling.restore import restore_run

SAMPLES = 4096  # z from which the mean and the deviation of w are estimated


class Spread(NamedTuple):
    """Holds where the styles of random z lie.

    Attributes:
      mean: of w.
      deviation: the root of the mean squared distance from it, a scalar.
      z: that of the drawn z whose style is nearest to the mean.
    """

    mean: Float[Array, " D"]
    deviation: Float[Array, ""]
    z: Float[Array, " Z"]


@flax.struct.dataclass
class StyleModel:
    """Holds a generator and its parameters; it is a pytree, whose leaves are the parameters.

    Attributes:
      variables: the generator's parameters and its mean of w.
      label: the class that the mapping is told, a scalar; None where the generator is told none.
      network: the generator.
    """

    variables: Tree
    label: Int[Array, ""] | None
    network: LatentGenerator = flax.struct.field(pytree_node=False)

    @classmethod
    def of(cls, method: Method, model: Model, label: int | None = None) -> StyleModel:
        """Returns the generator of a trained model of `StyleGAN2`, with the averaged weights.

        Raises:
          UserError: the method is another one, or the label is missing, unknown or not read by this generator.
        """
        if not isinstance(method, StyleGAN2):
            raise UserError(
                f"This is a run of {type(method).__name__}, which has no space of styles: name a run of stylegan2."
            )
        network: Any = method.generator  # `network_needs` has checked what is read of it
        classes = network.num_classes if network.conditional else 0
        if classes and label is None:
            raise UserError(f"This generator is told a class: give --label, from 0 to {classes - 1}.")
        if label is not None and not 0 <= label < classes:
            asked = f"its classes are 0 to {classes - 1}" if classes else "this generator is told none: leave it out"
            raise UserError(f"--label={label}: {asked}.")
        variables = {"params": model.params["generator"], **model.memory["generator"]}
        return cls(variables, None if label is None else jnp.int32(label), network)

    def mapping(self, z: Float[Array, "B Z"]) -> Float[Array, "B D"]:
        """Returns the style of each z."""
        label = None if self.label is None else jnp.broadcast_to(self.label, z.shape[:1])
        return self._apply("mapping", z, label)

    def broadcast(self, w: Float[Array, "B D"]) -> Float[Array, "B L D"]:
        """Returns each style for all layers."""
        return jnp.broadcast_to(w[:, None], (len(w), self.network.layers, w.shape[-1]))

    def paint(self, styles: Float[Array, "B L D"], noise: Noise = None) -> Float[Array, "B H W C"]:
        """Returns the images of styles, not clipped.

        Args:
          noise: random keys [B], a map for each noise input, or None for no noise.
        """
        return self._apply("synthesis", styles, noise)

    def noise_maps(self, keys: Key[Array, " B"]) -> tuple[Float[Array, "B h w 1"], ...]:
        """Returns the maps that the noise inputs have for these keys."""
        return self._apply("noise_maps", keys)

    def draw_z(self, keys: Key[Array, " B"]) -> Float[Array, "B Z"]:
        """Returns a standard normal z for each key."""
        return jax.vmap(lambda key: jax.random.normal(key, (self.network.z_dim,)))(keys)

    def spread(self, samples: int = SAMPLES) -> Spread:
        """Returns where the styles of `samples` random z lie; they are the same at each call."""
        z = self.draw_z(jax.random.split(jax.random.key(0), samples))
        w = self.mapping(z)
        mean = w.mean(0)
        squares = jnp.square(w - mean).sum(-1)
        return Spread(mean, jnp.sqrt(squares.mean()), z[squares.argmin()])

    def _apply(self, name: str, *inputs: Any) -> Any:
        return self.network.apply(self.variables, *inputs, method=name)


def open_run(workdir: epath.PathLike, label: int | None = None, trust: tuple[str, ...] = ()) -> StyleModel:
    """Returns the generator of the newest checkpoint of a run.

    Args:
      workdir: the run's folder.
      label: the class that z is told, where the generator is told one.
      trust: packages beside jaxgen whose classes the run's config may name.

    Raises:
      UserError: there is no such run, it is of another method, or the label does not fit.
    """
    trained = restore_run(workdir, trust)
    model = jax.device_put(trained.model, jax.devices()[0])
    return StyleModel.of(trained.generator.method, model, label)
