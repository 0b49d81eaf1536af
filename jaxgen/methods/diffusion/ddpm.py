"""Holds denoising diffusion (Ho et al. 2020, Algorithms 1 and 2): one network, one turn, a scan.

What is diffused is a codec's business, and what the network is told that of conditions (`jaxgen.codecs`,
`jaxgen.conditions`), so that latent diffusion, upsampling and text to image are the same method.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.codecs.base import Codec, Draw, values_of
from jaxgen.codecs.frames import Frames, apart, flat, repeated
from jaxgen.codecs.pixels import Pixels
from jaxgen.conditions.base import Condition
from jaxgen.conditions.label import Label
from jaxgen.conditions.parts import Parts
from jaxgen.conditions.text import Text
from jaxgen.diffusion.guidance import Guidance, GuidanceInputs
from jaxgen.diffusion.loss import denoising_loss, hybrid_loss, mean_of
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Denoiser, Embed, Prediction, check_prediction_type, denoiser
from jaxgen.diffusion.prediction_types import X0, Epsilon, PredictionType
from jaxgen.diffusion.process import diffuse
from jaxgen.diffusion.samplers.base import Sampler
from jaxgen.diffusion.schedules import Schedule
from jaxgen.diffusion.timesteps import TimestepSampler, Uniform, uniform_timesteps
from jaxgen.diffusion.weighting import Simple, Weighting
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn, check_loaded
from jaxgen.methods.diffusion.checks import check_codec, check_guidance, check_parts, check_times, steered, weights_of
from jaxgen.methods.diffusion.classified import classifier_logits, clip_similarity, guides_untrained
from jaxgen.networks.layers.convolution import gradients_in_loops
from jaxgen.networks.layers.stateless import apply_params, init_params

# The times at which `scores` reports the loss, so that a report can show it over the noise level
PROFILE = tuple(float(x) for x in np.round(np.arange(0.05, 1.0, 0.1), 2))
# Numbers that are folded into an image's key; samplers use smaller ones
OF_CODEC, OF_PARTS = 1_000, 1_001


@dataclasses.dataclass(frozen=True)
class DDPM(Method):
    """Learns to undo the noise of a schedule; samples by undoing it step by step.

    Schedule, prediction type, weighting, timesteps, sampler and guidance are independent choices. The schedule `edm`
    with the prediction type `edm` is the method of Karras et al. (2022), and `rectified_flow` with `velocity` that of
    Liu et al. (2022).

    Attributes:
      network: `(x [B, H, W, C], time [B], label?) -> [B, H, W, C]`; its group is `denoiser`. It sees labels where
        it has a `num_classes` above 0, which the config's data fill in, and what `parts` give.
      schedule: how much noise at which time.
      sampler: how images are drawn; `config.sampler`.
      image_shape: `(H, W, C)`; from the config's data.
      num_classes: the number of classes of the data; 0 where they have none.
      prediction_type: what the network predicts.
      weighting: what an error costs at each noise level, see `jaxgen.diffusion.weighting`.
      timesteps: how the times t in [0, 1] at which the network is trained are drawn, see `jaxgen.diffusion.timesteps`.
      label_dropout: share of training examples whose label, or other condition of a subclass, is replaced by the null
        class, for classifier-free guidance (Ho & Salimans 2022, Algorithm 1). Each of `parts` has a dropout of its own.
      knows_null: the network was taught the null condition before, so that classifier-free guidance needs no
        `label_dropout`, as in the fine-tuning of a pretrained network. Each of `parts` has such a fact of its own.
      learned_variance: the network has twice the images' channels and learns the reverse variance too (Nichol &
        Dhariwal 2021), by `vlb_weight` times the variational bound; for uint8 images, not for latents.
      guidance: how sampling is steered; `config.guidance`, which brings the networks of others with it.
      frames: how many states a trajectory panel shows.
      codec: what is diffused of images, see `jaxgen.codecs`.
      parts: what else the network is told, by name, see `jaxgen.conditions`. A part that has parameters has a group of
        its name, which learns in the same turn or is frozen.
      embed: what the network embeds for a time: the "time" itself, or the "noise_level" sqrt(alpha_bar), as SR3 does
        (Saharia et al. 2021); see `jaxgen.diffusion.prediction.embedded`.
      video: the number of frames of each video, which the graft `motion` sets; 0 diffuses images. The network is then
        called on frames, those of a video one behind the other, as examples of one noise level and one condition.

    Where a batch has `weight` float32 [B], each example's loss is multiplied by it.
    """

    network: nn.Module
    schedule: Schedule
    sampler: Sampler
    image_shape: tuple[int, int, int]
    num_classes: int = 0
    prediction_type: PredictionType = Epsilon()
    weighting: Weighting = Simple()
    timesteps: TimestepSampler = Uniform()
    label_dropout: float = 0.0
    knows_null: bool = False
    learned_variance: bool = False
    vlb_weight: float = 1e-3
    guidance: Guidance | None = None
    frames: int = 24
    codec: Codec = Pixels()
    parts: Mapping[str, Condition] = dataclasses.field(default_factory=dict, hash=False)  # a dict has no hash
    embed: Embed = "time"
    video: int = 0

    def __post_init__(self) -> None:
        check_prediction_type(self.schedule, self.prediction_type)
        check_times(self)
        check_codec(self)
        check_parts(self)
        check_guidance(self)
        if not 0 <= self.label_dropout < 1:
            raise UserError(f"config.method.label_dropout is {self.label_dropout}; it is a share below 1.")
        if self.label_dropout and not self.own_parts:
            raise UserError(
                "config.method.label_dropout needs labels: set config.data.num_classes. Each of config.method.parts "
                "has a dropout of its own."
            )

    @property
    def coding(self) -> Codec:
        """Returns the codec: what is diffused."""
        return Frames(self.own_codec, self.video) if self.video else self.own_codec

    @property
    def own_codec(self) -> Codec:
        """Returns the codec of one image."""
        return self.codec

    @property
    def gives(self) -> str:
        return self.coding.gives

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns `(H, W, C)` of what is diffused: images, or what the codec makes of them."""
        return self.coding.shape(self.image_shape)

    @property
    def labelled(self) -> bool:
        """Returns whether the method tells labels to the network, which has classes then; a part may do so instead."""
        return getattr(self.network, "num_classes", 0) > 0 and not any("label" in p.gives for p in self.parts.values())

    @property
    def own_parts(self) -> Mapping[str, Condition]:
        """Returns the conditions that the method's other fields ask for; `label_dropout` drops them together."""
        return {"label": Label(self.num_classes)} if self.labelled else {}

    @property
    def told(self) -> Parts:
        """Returns all conditions: the method's own, and `parts`."""
        return Parts(self.own_parts, self.parts, self.label_dropout, self.knows_null or self.label_dropout > 0)

    @property
    def required_groups(self) -> tuple[str, ...]:
        codec = (self.coding.group,) if self.coding.group else ()
        guides = self.guidance.required_groups if self.guidance else ()
        return tuple(dict.fromkeys((*codec, *self.told.frozen, *guides)))

    @property
    def conditions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*(self.guidance.entries if self.guidance else ()), *self.told.entries)))

    @property
    def ignored(self) -> Mapping[str, str]:
        if self.guidance is None:
            return {}
        read = {"label"} if "label" in self.guidance.reads else set()
        if "similarity" in self.guidance.reads:
            read |= {*self.guidance.entries}
        told = self.told
        for name, part in told.all.items():
            if "condition" in self.guidance.reads or name not in told.guiding:  # it stays beside the others' null
                read |= {*part.entries}
        return {name: self.guidance.unread for name in self.conditions if name not in read}

    @property
    def entries(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        found = {entry: shape for part in self._readers.values() for entry, shape in part.shapes.items()}
        return {**found, **self.coding.entries(self.image_shape)}

    @property
    def limits(self) -> Mapping[str, int]:
        return {**super().limits, **{k: v for part in self._readers.values() for k, v in part.limits.items()}}

    @property
    def _readers(self) -> Mapping[str, Condition]:
        """Returns all conditions, and as one more the texts that a CLIP of the guidance reads."""
        towers = self.guidance.towers if self.guidance else None
        read = {"guidance": Text(towers.text, entry=towers.entry)} if towers else {}
        return {**read, **self.told.all}

    def untrained(self, key: Array, batch: Batch) -> tuple[Params, Memory]:
        made = {group: part.init(key, batch) for group, part in self.told.frozen.items()}
        memory, group = self.coding.fresh_memory(), self.coding.group
        made |= {group: self.coding.init(key, self.image_shape)} if group else {}
        made |= guides_untrained(self.guidance, self.schedule, self.shape, key) if self.guidance else {}
        return made, {} if memory is None else {group: memory}

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        group = self.coding.group
        if group in given:
            fresh = jax.eval_shape(lambda key: self.coding.init(key, self.image_shape), key)
            check_loaded(group, given[group], fresh)
        self.coding.check(memory.get(group))
        of_network, of_parts = self._init_keys(key)
        learned = self.told.init(of_parts, batch)
        for name, part in self.told.frozen.items():
            if name in given:
                check_loaded(name, given[name], jax.eval_shape(functools.partial(part.init, batch=batch), key))
        count, *image_shape = batch["image"].shape
        x, time = jnp.zeros((count, *self.coding.shape(tuple(image_shape)))), jnp.zeros(count)
        keys = jax.random.split(key, count)
        inputs = self.network_inputs(self.condition({**given, **learned}, batch, keys, train=True))
        x, time, inputs = self._examples(x, time, inputs)
        learned["denoiser"] = init_params(self.network, of_network, x, time, **inputs)
        return learned, {"timesteps": self.timesteps.init(self.schedule)} if self.timesteps.carries else {}

    def _init_keys(self, key: Array) -> tuple[Array, Mapping[str, Array]]:
        """Returns the random keys of the network's parameters and of each group of conditions that learns."""
        return key, {group: jax.random.fold_in(key, zlib.crc32(group.encode())) for group in self.told.learned}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("denoise", ("denoiser", *self.told.learned), self.loss),)

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        count = len(batch["image"])
        draw = None
        if self.coding.random:
            of_codec, key = jax.random.split(key)
            draw = functools.partial(jax.random.normal, of_codec)
        of_time, of_noise, dropout, of_condition = jax.random.split(key, 4)
        x = self._encoded(params, batch, state.memory if self.coding.group else {}, draw)
        memory = state.memory["timesteps"] if self.timesteps.carries else {}
        t, weights = self.timesteps.sample(of_time, count, self.schedule, memory)
        keys = jax.random.split(jax.random.fold_in(of_condition, OF_PARTS), count)
        condition = self.condition(params, self.told.dropped(batch, of_condition), keys, train=True)
        denoise = self.denoiser(params, train=True, rngs={"dropout": dropout})
        losses = self._losses(denoise, x, condition, t, jax.random.normal(of_noise, x.shape))
        memory = (
            {"timesteps": self.timesteps.update(memory, t, losses, self.schedule)} if self.timesteps.carries else {}
        )
        if "weight" in batch:
            weights = weights * weights_of(batch)
        return (weights * losses).mean(), ({}, memory)

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        schedule, times = self.walk()
        start = self._start(keys, batch)
        drawn = self.decode(model, self.sampler(self.guided(model, batch, keys), schedule, start, keys, times=times))
        known = self.told.known(batch)
        return drawn if known is None else known.pasted(drawn)

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        if self.gives == "video":
            return {"videos": self.sample(model, keys, batch).swapaxes(0, 1)}
        if self.gives != "image":
            return {}
        frames = min(self.frames, self.sampler.steps)
        start = per_image_noise(keys, 0, self.shape)[None]
        schedule, times = self.walk()
        _, found = self.sampler.trajectory(
            self.guided(model, batch, keys), schedule, self._start(keys, batch), keys, frames, times
        )
        states = jnp.concatenate([start, found])
        if isinstance(self.coding, Pixels):
            return {"trajectory": states}
        return {"trajectory": jax.lax.map(lambda z: self.decode(model, z), states)}

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        """Returns `denoising_loss`, as in training, and the squared error of epsilon at each time of `PROFILE`.

        Of values that are not bounded, such as latents, also the moments from which `summary` makes `latent_std`.
        """
        image = self._encoded(
            model.params, batch, model.memory, lambda shape: per_image_noise(keys, OF_CODEC, shape[1:])
        )
        denoise, condition = self.denoiser(model.params), self.condition(model.params, batch, _of_parts(keys))
        t = jax.vmap(lambda key: uniform_timesteps(jax.random.fold_in(key, 0), 1, self.schedule)[0])(keys)
        noises = per_image_noise(keys, 1, image.shape[1:])
        found = {"denoising_loss": self._losses(denoise, image, condition, t, noises)}

        def error(time: Array) -> Array:
            t = jnp.full(image.shape[0], time)
            now = denoise(diffuse(self.schedule, image, t, noises), t, **condition)
            return mean_of(jnp.square(now.epsilon - noises), self.counted(condition))

        errors = jax.lax.map(error, jnp.asarray(self.schedule.snap_to_levels(np.asarray(PROFILE)), jnp.float32))
        found |= {f"denoising_loss_by_time@{t}": errors[i] for i, t in enumerate(PROFILE)}
        return found if self.coding.bounded else found | _moments(image)

    def summary(self, scores: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = super().summary(scores)
        if "latent_square" in found:
            found["latent_std"] = float(np.sqrt(found.pop("latent_square") - found.pop("latent_mean") ** 2))
        return found

    def better(self, score: str) -> str | None:
        return None if score == "latent_std" else super().better(score)

    def denoiser(
        self,
        params: Params,
        group: str = "denoiser",
        network: nn.Module | None = None,
        schedule: Schedule | None = None,
        **options: Any,
    ) -> Denoiser:
        """Returns the network, or another, as a denoiser `(x, t, label?) -> Prediction`, under the method's schedule or
        another; options go to the network (`train`, `rngs`).
        """

        def apply(x: Array, time: Array, **condition: Array) -> Array:
            x, time, inputs = self._examples(x, time, self.network_inputs(condition))
            found = apply_params(network or self.network, params[group], x, time, **inputs, **options)
            return apart(found, self.video) if self.video else found

        return denoiser(schedule or self.schedule, self.prediction_type, apply, self.learned_variance, self.embed)

    def _examples(self, x: Array, time: Array, inputs: Batch) -> tuple[Array, Array, Batch]:
        """Returns what the network is called with: of videos, each frame as an example."""
        if not self.video:
            return x, time, inputs
        inputs = {name: repeated(value, self.video) for name, value in inputs.items()}
        return flat(x), jnp.repeat(time, self.video), inputs

    def condition(
        self, params: Params, batch: Batch, keys: Key[Array, " B"] | None = None, train: bool = False
    ) -> Batch:
        """Returns the denoiser's keyword arguments other than (x, t), from a batch with the entries `conditions`.

        Args:
          keys: one random key for each example, which some conditions need.
          train: whether this is training.
        """
        return self.told(params, batch, keys, self.own_codec.shape(self.image_shape), train)

    def network_inputs(self, condition: Batch) -> Batch:
        """Returns those of the denoiser's keyword arguments that the network is called with: all of them here.

        A subclass whose `denoiser` uses some itself, such as the mask of a known part, leaves these out.
        """
        return condition

    def counted(self, condition: Batch) -> Array | None:
        """Returns the values that the loss counts, 1 of `[B, ...]` and 0 for others; None, as here, counts all.

        Args:
          condition: the denoiser's keyword arguments.
        """
        return None

    def diffused(self, model: Model, batch: Batch) -> Float[Array, "B ..."]:
        """Returns what is diffused of a batch's images, without noise of the codec's own."""
        return self._encoded(model.params, batch, model.memory, None)

    def decode(self, model: Model, z: Float[Array, "B ..."]) -> Float[Array, "B H W C"]:
        """Returns the images, in [-1, 1], of what was diffused."""
        params, memory = values_of(self.coding, model.params, model.memory)
        return self.coding.decode(params, z, memory)

    def _encoded(self, params: Params, batch: Batch, memory: Memory, draw: Draw | None) -> Array:
        own, carried = values_of(self.coding, params, memory)
        return self.coding.encode(own, batch, carried, draw)

    def walk(self) -> tuple[Schedule, np.ndarray | None]:
        """Returns the schedule to sample with, and the sampler's times; None for those of the sampler's own spacing."""
        return self.schedule, None

    def guided(self, model: Model, batch: Batch, keys: Key[Array, " B"] | None = None) -> Denoiser:
        """Returns the denoiser of samplers: `(x, t) -> Prediction` for a batch's conditions, steered by `guidance`.

        Where a condition knows a part of the images, that part of x0 is the known one. `keys` are the images', which
        some conditions need.
        """
        denoise, known = self._steered(model, batch, keys), self.told.known(batch)
        if known is None:
            return denoise

        def kept(x: Array, t: Array) -> Prediction:
            now = denoise(x, t)
            return dataclasses.replace(now, value=known.pasted(now.x0), x=x, prediction_type=X0())

        return kept

    def _steered(self, model: Model, batch: Batch, keys: Key[Array, " B"] | None) -> Denoiser:
        """Returns the model under a batch's conditions, steered by `guidance`."""
        schedule, _ = self.walk()
        keys = None if keys is None else _of_parts(keys)
        denoise = self.denoiser(model.params, schedule=schedule)
        condition = self.condition(model.params, batch, keys)
        if self.guidance is None:
            return lambda x, t: denoise(x, t, **condition)
        if self.guidance.sees_images:  # gradients inside the sampler's scan
            denoise = gradients_in_loops()(denoise)
        null = None
        if self.told.guiding:
            null = self.condition(model.params, {**batch, **self.told.null(batch)}, keys)
        others: dict[str, Any] = {}
        if "weak" in self.required_groups:
            others["weak"] = self.denoiser(model.params, "weak", self.guidance.weak, schedule)
        if "classifier" in self.required_groups:
            others["classifier"] = classifier_logits(self.guidance, self.schedule, model.params["classifier"])
        if self.guidance.towers is not None:
            others["similarity"] = clip_similarity(self.guidance, self.schedule, model.params, batch)
        inputs = GuidanceInputs(denoise, condition, null, label=batch.get("label"), **others)
        return steered(self.guidance, inputs, self.parts)

    def _losses(self, denoise: Denoiser, image: Array, condition: Batch, t: Array, noises: Array) -> Array:
        schedule, weighting = self.schedule, self.weighting
        if self.learned_variance:
            return hybrid_loss(denoise, schedule, image, t, noises, weighting, self.vlb_weight, **condition)
        return denoising_loss(denoise, schedule, image, t, noises, weighting, self.counted(condition), **condition)

    def _start(self, keys: Array, batch: Batch) -> Array:
        """Returns the noise at the first time, one image for each key; that of the entry `noise` where it is given."""
        start = batch["noise"].astype(jnp.float32) if "noise" in batch else per_image_noise(keys, 0, self.shape)
        return self.walk()[0].prior_std * start


def _of_parts(keys: Key[Array, " B"]) -> Key[Array, " B"]:
    """Returns the keys of images' conditions, of the images' own."""
    return jax.vmap(lambda key: jax.random.fold_in(key, OF_PARTS))(keys)


def _moments(x: Array) -> dict[str, Array]:
    """Returns the mean and the mean square of each example's values."""
    axes = tuple(range(1, x.ndim))
    return {"latent_mean": x.mean(axis=axes), "latent_square": jnp.square(x).mean(axis=axes)}
