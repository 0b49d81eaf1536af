"""The triplane GAN makes objects in space and learns from single pictures of them, each with its camera.

Without captions it is EG3D (Chan et al. 2022) without its super-resolution; with captions it follows TPA3D (Wu et al.
2024), with volume rendering in place of a textured surface and a text encoder that learns along.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from jaxgen.adversarial.sampling import NORMAL, GANSampler
from jaxgen.arrays import Array, Batch, Memory, Params, Tree, check_entries
from jaxgen.errors import UserError
from jaxgen.geometry import agreement, cameras, surface
from jaxgen.methods.base import LossResult, LossState, Model
from jaxgen.methods.gans.camera_gan import CameraGAN

FRAMES = 24  # of the panel `orbit`
OBJECTS = 8  # that it shows, as `depth` does
ASIDE = math.pi / 6  # the angle around z between the two views that `scores` compares
SIDE = 64  # points along each side of the grid that meshes are made on


@dataclasses.dataclass(frozen=True)
class TriplaneGAN(CameraGAN):
    """Turns are those of a GAN. Fakes have the cameras, and the captions, of the batch that they are made beside.

    `sample` also gives `depth` and `opacity`, `[B, H, W, 1]`, and the panel `orbit` turns objects once around. The
    surfaces of `volumes` are where half of the light stops within one piece of the longest ray, or where the signed
    distance of a generator with `surface` is 0.

    Attributes:
      masks: whether the discriminator also sees where something is, as a fourth channel from -1 (nothing) to 1: the
        opacity of fakes, and the `mask` of the data. GET3D (Gao et al. 2022) and TPA3D have a second discriminator for
        it.

    Raises:
      UserError: the generator makes no planes.
    """

    masks: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not hasattr(self.generator, "planes"):
            raise UserError(
                "config.method.generator makes no planes, which a triplane GAN needs: name 'triplane_generator', or "
                "config.method.name='camera_gan'."
            )

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        if self.masks:
            check_entries(batch, ("mask",), "config.method.masks", "a config.data.source such as 'solids'")
        return super().init(key, self.with_masks(batch), stage, given, params, memory)

    def with_masks(self, batch: Batch) -> Batch:
        """Returns the batch with its mask as the image's last channel, where the discriminator sees masks."""
        if not self.masks:
            return batch
        mask = jnp.where(batch["mask"] > 0, 1.0, -1.0)[..., None]
        return {**batch, "image": jnp.concatenate([batch["image"], mask], -1)}

    def discriminator_loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        return super().discriminator_loss(params, self.with_masks(batch), key, state)

    def r1_loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        return super().r1_loss(params, self.with_masks(batch), key, state)

    def generator_loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        return super().generator_loss(params, self.with_masks(batch), key, state)

    def generate(self, params: Params, memory: Memory, z: Tree, batch: Batch, train: bool) -> tuple[Array, Memory]:
        """Returns what the discriminator sees: images, in training with the opacity where it sees masks."""
        if not (self.masks and train):
            return super().generate(params, memory, z, batch, train)
        told = self.with_words(params, batch)
        made, keys = (told.get("tokens"), told.get("words")), z["rays"]
        planes = self._applied(params, z, *made, method="planes")
        seen = self._applied(params, planes, batch["camera"], keys, method="views")
        return jnp.concatenate([seen["image"], 2 * seen["mask"] - 1], -1), memory

    def sample_z(self, keys: Key[Array, " B"], sampler: GANSampler = NORMAL) -> tuple[Tree, dict[str, Array] | None]:
        noise, _ = super().sample_z(keys, sampler)
        return {"noise": noise, "rays": jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)}, None

    def planes(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B 3 R R C"]:
        """Returns the planes of features of objects, one key for each."""
        z, told = self.sample_z(keys, self.sampler)[0], self.with_words(model.params, batch)
        return self._applied(model.params, z, told.get("tokens"), told.get("words"), method="planes")

    def views(self, model: Model, planes: Float[Array, "B 3 R R C"], camera: Float[Array, "B 25"]) -> dict[str, Array]:
        """Returns `image` in [-1, 1], `depth` and `opacity` of objects from cameras."""
        seen = self._applied(model.params, planes, camera, method="views")
        return {"image": jnp.clip(seen["image"], -1, 1), "depth": seen["depth"], "opacity": seen["mask"]}

    def _applied(self, params: Params, *arrays: Any, method: str) -> Any:
        return self.generator.apply({"params": params["generator"]}, *arrays, method=method)

    def sample(  # type: ignore[override]  # it gives more than images
        self, model: Model, keys: Key[Array, " B"], batch: Batch
    ) -> dict[str, Array]:
        return self.views(model, self.planes(model, keys, batch), batch["camera"])

    def volumes(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B S S S ..."]]:
        planes, points = self.planes(model, keys, batch), surface.grid(SIDE)

        def seen(slab: Float[Array, "S S 3"]) -> tuple[Array, Array]:
            everyone = jnp.broadcast_to(slab.reshape(-1, 3), (len(planes), SIDE * SIDE, 3))
            return self._applied(model.params, planes, everyone, method="field")

        density, colour = (jnp.moveaxis(x, 0, 1) for x in jax.lax.map(seen, jnp.asarray(points)))
        density = density.reshape(len(planes), SIDE, SIDE, SIDE)
        outside = np.linalg.norm(points, axis=-1) - 1  # no ray has seen what is outside of the ball
        if self.generator.surface:
            found = jnp.maximum(density, outside)
        else:
            level = math.log(2) * self.generator.samples / 2
            found = jnp.maximum(level - density, SIDE * level * outside)
        return {
            "surface": found,
            "colour": jnp.clip(colour.reshape(*density.shape, 3), -1, 1),
        }

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        """Returns how objects that are drawn for held-out captions and cameras agree with the truth and among views.

        Where the data have `depth`, `depth_correlation` is that of nearness, the distance to where the unit ball ends
        and 0 where nothing is, with the true one; `depth_correlation_other` is with that of another example, as seen by
        its own camera. `reprojection_error` is between two views that are 30 degrees apart, and `reprojected` the share
        of pixels that it is the mean over.
        """
        planes = self.planes(model, keys, batch)

        def view(camera: Array) -> agreement.View:
            seen = self.views(model, planes, camera)
            return agreement.View(seen["image"], seen["depth"], seen["opacity"], camera)

        here = view(batch["camera"])
        error, share = agreement.reprojection(here, view(cameras.turned(batch["camera"], ASIDE)))
        found = {"reprojection_error": error, "reprojected": share}
        if "depth" in batch:
            end = cameras.DISTANCE + 1
            true = jnp.where(batch["depth"] > 0, end - batch["depth"], 0.0)
            near = here.opacity * (end - here.depth)
            found["depth_correlation"] = agreement.correlation(near, true)
            found["depth_correlation_other"] = agreement.correlation(near, jnp.roll(true, 1, axis=0))
        return found

    def summary(self, scores: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns the means; that of `reprojection_error` is over pixels, and missing where none was compared."""
        found, share = super().summary(scores), scores["reprojected"]
        del found["reprojection_error"]
        if share.sum() > 0:
            found["reprojection_error"] = float((scores["reprojection_error"] * share).sum() / share.sum())
        return found

    def better(self, score: str) -> str | None:
        return {"reprojection_error": "lower", "depth_correlation": "higher"}.get(score)

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns `interpolation`; `orbit`, an animation of the first objects, each seen once around; and `depth` of
        these, from white, where the unit ball is nearest to the camera, to black, where it ends or nothing is.
        """
        height, width = self.image_shape[:2]
        count = min(OBJECTS, len(keys))
        told = {name: batch[name][:count] for name in self.conditions}
        planes = self.planes(model, keys[:count], told)
        around = jnp.asarray(cameras.orbit(FRAMES, aspect=width / height))

        def frame(camera: Array) -> Array:
            return self.views(model, planes, jnp.broadcast_to(camera, (count, *camera.shape)))["image"]

        here = self.views(model, planes, told["camera"])
        nearness = here["opacity"] * jnp.clip(cameras.DISTANCE + 1 - here["depth"], 0, 2) - 1
        return {**super().panels(model, keys, batch), "orbit": jax.lax.map(frame, around), "depth": nearness}
