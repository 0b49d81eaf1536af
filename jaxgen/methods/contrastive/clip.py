"""Learns images and texts in one space (CLIP, Radford et al. 2021), and captions of images (CoCa, Yu et al. 2022).

Two towers map an image and its caption to embeddings, and a symmetric contrastive loss over the whole batch pulls pairs
together and others apart. A captioner on top of both predicts the caption's next token. Each of the two objectives may
be left out. With a schedule the image tower sees noisy images and their time, as CLIP guidance needs it (Nichol et al.
2022, "GLIDE", section 2.4).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Float, Int, Key

from jaxgen.arrays import Array, Batch, Memory, Metrics, MissingEntry, Params, Tree
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.process import append_dims, diffuse
from jaxgen.diffusion.schedules import Schedule
from jaxgen.diffusion.timesteps import uniform_timesteps
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn
from jaxgen.methods.contrastive.prompts import Prompts
from jaxgen.methods.contrastive.retrieval import info_nce, logit_scale, recalls
from jaxgen.networks.contrastive.captioner import Captioner
from jaxgen.networks.layers.stateless import apply_params, init_params
from jaxgen.networks.pretrained.clip import TEMPERATURE, TextTower, unit, with_time

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)  # the times at which `scores` of a tower of noisy images reports accuracies
IMAGE, TEXT, SAME = "image_embedding", "text_embedding", "same"  # scores that are no numbers of their own


@dataclasses.dataclass(frozen=True)
class CLIP(Method):
    """It has one turn; its groups are `image`, `text`, `logit_scale` and `captioner`, as far as they are used.

    With a captioner it gives the tokens of captions, and else the unit embeddings of images. The turn's loss is
    contrastive * InfoNCE + captioning * cross-entropy of the next token (Yu et al. 2022, Eq. 4).

    Attributes:
      image: the image tower, `image [B, H, W, C], time? [B] -> (hidden [B, N, D], embedding [B, P])`.
      text: the text tower, whose `projection` is that of the image tower.
      image_shape: `(H, W, C)`; from the config's data.
      captioner: the network that writes captions, or None.
      contrastive, captioning: weights of the two losses; 0 leaves one out, and the captioner with the second.
      schedule: that of the noise which the image tower sees in training; None for clean images.
      locked: groups that do not learn, and are given by `config.init_from` ("locked-image tuning", Zhai et al. 2022,
        if it is `image`).
      zero_shot: `{attribute: its classes and sentences}` that held-out images are classified by.
      same: an entry of held-out examples; those of equal values count as right answers of retrieval too. "" counts
        an image's own text alone.
      recall: the numbers k of recall@k.
      caption_temperature: of the captions' tokens that are drawn; 0 takes the most likely.
      pad: the id of the tokens behind a caption's end.
    """

    image: nn.Module
    text: TextTower
    image_shape: tuple[int, int, int]
    captioner: Captioner | None = None
    contrastive: float = 1.0
    captioning: float = 2.0
    schedule: Schedule | None = None
    locked: tuple[str, ...] = ()
    zero_shot: Mapping[str, Prompts] = dataclasses.field(default_factory=dict, hash=False)  # a dict has no hash
    same: str = ""
    recall: tuple[int, ...] = (1, 5, 10)
    caption_temperature: float = 0.0
    pad: int = 0

    conditions = ("image",)
    panel_inputs = ("image", "tokens")
    whole_batch = True  # an image is compared with the texts of all others

    def __post_init__(self) -> None:
        if self.contrastive < 0 or self.captioning < 0 or not (self._contrasts or self._captions):
            raise UserError(
                f"CLIP learns by comparing (contrastive={self.contrastive:g}) or by writing captions (captioning="
                f"{self.captioning:g}, which needs config.method.captioner), and neither is on: set one of them above "
                "0."
            )
        timed = getattr(self.image, "sees_time", False)
        if timed != (self.schedule is not None):
            raise UserError(
                "An image tower of noisy images has timed=True, and config.method.schedule says their noise; here "
                f"timed is {timed} and the schedule is {'missing' if self.schedule is None else 'set'}."
            )
        widths = [getattr(tower, "projection", 0) for tower in (self.image, self.text)]
        if self._contrasts and (widths[0] != widths[1] or not widths[0]):
            raise UserError(
                "Images and texts are compared in one space: set config.method.image.projection and "
                f"config.method.text.projection to the same number of features, not {widths[0]} and {widths[1]}."
            )
        self._check_names()

    def _check_names(self) -> None:
        """Raises a UserError for groups to lock, or numbers of retrieval, that do not exist."""
        for group in self.locked:
            if group not in self._groups or len(self.locked) >= len(self._groups):
                raise UserError(
                    f"config.method.locked={self.locked} names groups that do not learn, of {', '.join(self._groups)}, "
                    "and leaves at least one."
                )
        if any(k < 1 for k in self.recall):
            raise UserError(f"config.method.recall={self.recall} has the numbers k of recall@k, each 1 or more.")
        words = self.captioner.vocabulary if self.captioner is not None else self.text.vocabulary
        if words != self.text.vocabulary:
            raise UserError(
                f"config.method.captioner.vocabulary={words}, and the text tower's is {self.text.vocabulary}; they "
                "read and write the same tokens."
            )

    @property
    def _contrasts(self) -> bool:
        return self.contrastive > 0

    @property
    def _captions(self) -> bool:
        return self.captioner is not None and self.captioning > 0

    @property
    def _groups(self) -> tuple[str, ...]:
        """Returns all groups."""
        return (
            "image", "text", *(("logit_scale",) if self._contrasts else ()), *(("captioner",) if self._captions else ())
        )  # fmt: skip

    @property
    def gives(self) -> str:
        return "tokens" if self._captions else "embedding"

    @property
    def required_groups(self) -> tuple[str, ...]:
        return self.locked

    @property
    def entries(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        return {"tokens": ((self.text.length,), np.int32)}

    @property
    def columns(self) -> Mapping[str, int]:
        return {"nearest_images": 6}

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        found = self._fresh(key, batch)
        return {group: found[group] for group in self._groups if group not in self.locked}, {}

    def untrained(self, key: Array, batch: Batch) -> tuple[Params, Memory]:
        found = self._fresh(key, batch)
        return {group: found[group] for group in self.locked}, {}

    def _fresh(self, key: Array, batch: Batch) -> Params:
        if "tokens" not in batch:
            raise MissingEntry(
                f"CLIP learns from images with their texts, and the data have {', '.join(sorted(batch))}: choose a "
                "config.data.source with captions, such as captions:folder:<path>."
            )
        of_image, of_text, of_captioner = jax.random.split(key, 3)
        image, tokens = batch["image"], batch["tokens"]
        times = () if self.schedule is None else (jnp.zeros(len(image)),)
        found: Params = {
            "image": init_params(self.image, of_image, image, *times),
            "text": init_params(self.text, of_text, tokens),
            "logit_scale": {"logit_scale": jnp.asarray(-np.log(TEMPERATURE), jnp.float32)},
        }
        if self.captioner is not None:
            seen, _ = jax.eval_shape(lambda p: apply_params(self.image, p, image, *times), found["image"])
            read, _ = jax.eval_shape(lambda p: apply_params(self.text, p, tokens), found["text"])
            blank = [jnp.zeros(x.shape, x.dtype) for x in (read, seen)]
            found["captioner"] = init_params(self.captioner, of_captioner, *blank)
        return found

    def extended(self, group: str, loaded: Tree, fresh: Tree) -> Tree:
        """Returns a tower of clean images with fresh features of the time, which are zero, where it is to see noise."""
        return with_time(loaded, fresh) if group == "image" and self.schedule is not None else loaded

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("clip", tuple(group for group in self._groups if group not in self.locked), self.loss),)

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        image = batch["image"]
        inputs: tuple[Array, ...] = (image,)
        if self.schedule is not None:
            of_time, of_noise = jax.random.split(key)
            t = uniform_timesteps(of_time, len(image), self.schedule)
            inputs = self.noised(image, t, jax.random.normal(of_noise, image.shape))
        seen, of_image = apply_params(self.image, params["image"], *inputs)
        read, of_text = apply_params(self.text, params["text"], batch["tokens"])
        total = jnp.zeros(())
        metrics: Metrics = {}
        if self._contrasts:
            scale = logit_scale(params["logit_scale"]["logit_scale"])
            value, accuracy = info_nce(unit(of_image), unit(of_text), scale)
            total = total + self.contrastive * value
            metrics |= {"contrastive": value, "accuracy": accuracy, "logit_scale": scale}
        if self._captions:
            value, right = self._caption_errors(params, read, seen, batch["tokens"])
            total = total + self.captioning * value.mean()
            metrics |= {"captioning": value.mean(), "token_accuracy": right.mean()}
        return total, (metrics, {})

    def noised(
        self, image: Float[Array, "B H W C"], t: Float[Array, " B"], noise: Float[Array, "B H W C"]
    ) -> tuple[Float[Array, "B H W C"], Float[Array, " B"]]:
        """Returns what a tower of noisy images is called with: alpha x + sigma noise, scaled, and the time."""
        assert self.schedule is not None
        x = diffuse(self.schedule, image, t, noise)
        return append_dims(self.schedule.input_scale(t), x) * x, self.schedule.conditioning(t)

    def _inputs(self, image: Float[Array, "B H W C"]) -> tuple[Array, ...]:
        """Returns what the image tower is called with for clean images."""
        if self.schedule is None:
            return (image,)
        t = jnp.zeros(len(image))
        return append_dims(self.schedule.input_scale(t), image) * image, self.schedule.conditioning(t)

    def _caption_errors(
        self, params: Params, read: Array, seen: Array, tokens: Int[Array, "B L"]
    ) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        """Returns the mean cross-entropy [B] of a caption's tokens, its end among them, and the share predicted."""
        assert self.captioner is not None
        logits = apply_params(self.captioner, params["captioner"], read, seen)
        counted = jnp.arange(tokens.shape[1])[None] <= self.text.ends(tokens)[:, None]
        error = optax.softmax_cross_entropy_with_integer_labels(logits, tokens) * counted
        right = (logits.argmax(axis=-1) == tokens) & counted
        count = counted.sum(axis=1)
        return error.sum(axis=1) / count, right.sum(axis=1) / count

    def embed_image(self, params: Params, image: Float[Array, "B H W C"]) -> Float[Array, "B P"]:
        """Returns the unit embeddings, float32, of clean images in [-1, 1]."""
        return unit(apply_params(self.image, params["image"], *self._inputs(image))[1])

    def embed_text(self, params: Params, tokens: Int[Array, "B L"]) -> Float[Array, "B P"]:
        """Returns the unit embeddings, float32, of texts."""
        return unit(apply_params(self.text, params["text"], tokens)[1])

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Array]:
        """Returns the images' unit embeddings `embedding` [B, P] and, with a captioner, `tokens` [B, L]."""
        seen, embedding = apply_params(self.image, model.params["image"], *self._inputs(batch["image"]))
        found = {"embedding": unit(embedding)} if self._contrasts else {}
        return {"tokens": self.written(model.params, seen, keys), **found} if self._captions else found

    def written(self, params: Params, seen: Float[Array, "B N D"], keys: Key[Array, " B"]) -> Int[Array, "B L"]:
        """Returns the tokens of captions, drawn one after the other from images' hidden states.

        Every step computes the whole caption again, of which causal attention lets token i depend on those before it.
        A caption that has not ended in the last place is ended there.
        """
        assert self.captioner is not None
        length, end = self.text.length, self.text.vocabulary - 1 if self.text.end is None else self.text.end
        captioner = self.captioner

        def step(carry: tuple[Array, Array], place: Array) -> tuple[tuple[Array, Array], None]:
            tokens, ended = carry
            read, _ = apply_params(self.text, params["text"], tokens)
            logits = apply_params(captioner, params["captioner"], read, seen)[:, place]
            chosen = logits.argmax(axis=-1)
            if self.caption_temperature:
                own = jax.vmap(lambda key: jax.random.fold_in(key, place))(keys)
                chosen = jax.vmap(jax.random.categorical)(own, logits / self.caption_temperature)
            chosen = jnp.where(place == length - 1, end, chosen)
            chosen = jnp.where(ended, self.pad, chosen).astype(jnp.int32)
            return (tokens.at[:, place].set(chosen), ended | (chosen == end)), None

        blank = jnp.full((len(seen), length), self.pad, jnp.int32), jnp.zeros(len(seen), bool)
        (tokens, _), _ = jax.lax.scan(step, blank, jnp.arange(length))
        return tokens

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        """Returns embeddings for `summary`, whether each attribute is right by its prompts, and the caption's error."""
        params, image, tokens = model.params, batch["image"], batch["tokens"]
        seen, of_image = apply_params(self.image, params["image"], *self._inputs(image))
        read, of_text = apply_params(self.text, params["text"], tokens)
        found: dict[str, Array] = {}
        if self._contrasts:
            found = {IMAGE: unit(of_image), TEXT: unit(of_text), **self._right(params, unit(of_image), batch)}
            if self.same:
                found[SAME] = self._entry(batch, self.same).reshape(len(image), -1)
            if self.schedule is not None:
                found |= self._right_by_time(params, keys, batch)
        if self._captions:
            error, right = self._caption_errors(params, read, seen, tokens)
            found |= {"caption_cross_entropy": error, "caption_token_accuracy": right}
        return found

    def _right(self, params: Params, image: Float[Array, "B P"], batch: Batch) -> dict[str, Array]:
        """Returns `accuracy` [B] of all attributes, and `accuracy_<attribute>` of each, by the nearest class."""
        right = {}
        for name, prompts in self.zero_shot.items():
            classes = prompts.embeddings(lambda tokens: self.embed_text(params, tokens))
            truth = prompts.truth(self._entry(batch, prompts.entry))
            right[f"accuracy_{name}"] = ((image @ classes.T).argmax(axis=1) == truth).astype(jnp.float32)
        return {"accuracy": jnp.stack(list(right.values())).min(axis=0), **right} if right else {}

    def _right_by_time(self, params: Params, keys: Key[Array, " B"], batch: Batch) -> dict[str, Array]:
        """Returns `accuracy_by_time@t` of images at five levels of noise."""
        assert self.schedule is not None
        if not self.zero_shot:
            return {}
        image, found = batch["image"], {}
        noise = per_image_noise(keys, 1, image.shape[1:])
        levels = self.schedule.snap_to_levels(np.asarray(LEVELS))
        for name, level in zip(LEVELS, levels, strict=True):
            inputs = self.noised(image, jnp.full(len(image), level, jnp.float32), noise)
            embedding = unit(apply_params(self.image, params["image"], *inputs)[1])
            found[f"accuracy_by_time@{name}"] = self._right(params, embedding, batch)["accuracy"]
        return found

    def _entry(self, batch: Batch, name: str) -> Array:
        if name not in batch:
            raise UserError(
                f"config.method reads the entry {name!r} of held-out examples, and those of the data have "
                f"{', '.join(sorted(batch))}: name another, or leave its prompts out."
            )
        return batch[name]

    def summary(self, scores: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns the means of numbers, and recall@k of images by texts and of texts by images over all examples."""
        values: dict[str, Any] = dict(scores)
        image, text, same = (values.pop(name, None) for name in (IMAGE, TEXT, SAME))
        found = super().summary(values)
        if image is None or text is None:
            return found
        same = np.arange(len(image))[:, None] if same is None else same
        for name, pair in (("text_to_image", (text, image)), ("image_to_text", (image, text))):
            numbers = recalls(*pair, same, self.recall)
            found |= {f"recall_{name}@{k}": number for k, number in zip(self.recall, numbers, strict=True)}
        return found

    def better(self, score: str) -> str | None:
        return "higher" if score.startswith(("accuracy", "recall", "caption_token_accuracy")) else "lower"

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns `nearest_images`: in each row a held-out image, and the five that are nearest to its caption."""
        if not self._contrasts or not {"image", "tokens"} <= set(batch) or len(batch["image"]) < 6:
            return {}
        image = self.embed_image(model.params, batch["image"])
        order = jnp.argsort(-self.embed_text(model.params, batch["tokens"]) @ image.T, axis=1)[:, :5]
        own = jnp.arange(len(image))[:, None]
        rows = jnp.concatenate([own, order], axis=1)[:8]
        return {"nearest_images": batch["image"][rows.reshape(-1)]}
