"""Keeps, of several images that are drawn for each text, the one that a run of CLIP finds nearest to the text.

It is the reranking of DALL-E (Ramesh et al. 2021, section 2.6), for every model that draws images from texts.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.typing import DTypeLike
from jaxtyping import Float, Int, Key
from ml_collections import ConfigDict

from jaxgen.arrays import Array, Batch, Params
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model
from jaxgen.runs.tuning.words import base_tokenizer, own_tokenizer
from jaxgen.runs.workdir import config_of_run
from jaxgen.sampling.generator import ANOTHER
from jaxgen.sampling.restore import TrainedModel, restore

log = logging.getLogger("jaxgen")
OF_JUDGE = "rerank/"  # before the names of CLIP's groups, so that they are apart from the model's own


@runtime_checkable
class Embeds(Protocol):
    """Holds what is read of a method that maps images and texts into one space, such as CLIP."""

    image_shape: tuple[int, int, int]

    def embed_image(self, params: Params, image: Float[Array, "B H W C"]) -> Float[Array, "B P"]: ...

    def embed_text(self, params: Params, tokens: Int[Array, "B L"]) -> Float[Array, "B P"]: ...


@dataclasses.dataclass(frozen=True)
class Reranked(Method):
    """Draws as a method does, several times under each text, and keeps the best of these draws; it does not train.

    Draw 0 is that of the method alone, and the others are those that `--draws` shows beside it. Beside what the method
    samples there are `rerank_cosine` [B], the cosine of the image that is kept and its text, and `rerank_draw` int32
    [B], its number.

    Attributes:
      method: the method that draws images from `tokens`.
      judge: the method whose embeddings are compared.
      draws: how many images are drawn under each text.
    """

    method: Method
    judge: Method
    draws: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.method.image_shape  # type: ignore[attr-defined]  # of every method that draws images

    @property
    def sampler(self) -> Any:
        return getattr(self.method, "sampler", None)

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        return self.method.stages

    @property
    def conditions(self) -> tuple[str, ...]:
        return self.method.conditions

    @property
    def ignored(self) -> Mapping[str, str]:
        return self.method.ignored

    @property
    def panel_inputs(self) -> tuple[str, ...]:
        return self.method.panel_inputs

    @property
    def columns(self) -> Mapping[str, int]:
        return self.method.columns

    @property
    def entries(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        return self.method.entries

    @property
    def limits(self) -> Mapping[str, int]:
        return self.method.limits

    @property
    def exempt(self) -> Mapping[str, int]:
        return self.method.exempt

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Array]:
        own, judging = self._apart(model)
        text = self._judge.embed_text(judging, batch["tokens"])

        def draw(keys: Array) -> tuple[dict[str, Array], Array]:
            found = self.method.sample(own, keys, batch)
            arrays = dict(found) if isinstance(found, Mapping) else {"image": found}
            cosine = (self._judge.embed_image(judging, jnp.clip(arrays["image"], -1, 1)) * text).sum(axis=-1)
            return arrays, jnp.where(jnp.isfinite(cosine), cosine, -jnp.inf)

        def step(best: tuple[dict[str, Array], Array, Array], number: Array) -> tuple[Any, None]:
            again = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, ANOTHER), number))(keys)
            now = (*draw(again), jnp.full(len(keys), number, jnp.int32))
            better = now[1] > best[1]

            def choose(new: Array, old: Array) -> Array:
                return jnp.where(better.reshape(-1, *[1] * (old.ndim - 1)), new, old)

            return jax.tree.map(choose, now, best), None

        first = (*draw(keys), jnp.zeros(len(keys), jnp.int32))
        (arrays, cosine, number), _ = jax.lax.scan(step, first, jnp.arange(1, self.draws))
        return {**arrays, "rerank_cosine": cosine, "rerank_draw": number}

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        return self.method.scores(self._apart(model)[0], keys, batch)

    def summary(self, scores: Mapping[str, np.ndarray]) -> dict[str, float]:
        return self.method.summary(scores)

    def better(self, score: str) -> str | None:
        return self.method.better(score)

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        return self.method.panels(self._apart(model)[0], keys, batch)

    @property
    def _judge(self) -> Embeds:
        assert isinstance(self.judge, Embeds)  # by `reranked`
        return self.judge

    def _apart(self, model: Model) -> tuple[Model, Params]:
        """Returns the model without CLIP, and CLIP's parameters."""
        judging = {name.removeprefix(OF_JUDGE): x for name, x in model.params.items() if name.startswith(OF_JUDGE)}
        own = {name: x for name, x in model.params.items() if not name.startswith(OF_JUDGE)}
        return dataclasses.replace(model, params=own), judging


def reranked(
    trained: TrainedModel, workdir: str | os.PathLike[str], draws: int, trust: Collection[str] = ()
) -> TrainedModel:
    """Returns a model that keeps the best of several draws for each text, by a run of CLIP.

    Args:
      trained: a model that draws images from texts.
      workdir: the run of CLIP, which learned texts by the same tokenizer and images of the same size.
      draws: how many images are drawn under each text, at least 2.
      trust: packages beside jaxgen whose classes the run's config may name.

    Raises:
      UserError: the model draws no images from texts, or the run is no CLIP or does not fit it.
    """
    method, where = trained.generator.method, f"--rerank={os.fspath(workdir)}"
    if "tokens" not in method.conditions or not method.samples_images:
        raise UserError("--rerank compares images with the texts that they were drawn for, and this model reads none.")
    if draws < 2:
        raise UserError(f"--rerank keeps the best of several images of each text, not of {draws}: give --draws=8.")
    config = config_of_run(workdir, trust, where)
    found = restore(config, epath.Path(workdir))
    judge = found.generator.method
    if not isinstance(judge, Embeds) or "text" not in found.model.params:
        raise UserError(f"{where} is a run of {type(judge).__name__}, which does not compare images with texts: name a "
                        "run of clip.")  # fmt: skip
    shape = getattr(method, "image_shape", None)
    if judge.image_shape != shape:
        sizes = ["x".join(map(str, size)) for size in (judge.image_shape, shape or ())]
        raise UserError(f"{where} sees images of {sizes[0]}, and the model draws {sizes[1]}: name a CLIP of that size.")
    tokenizers = [_tokenizer(one) for one in (config, trained.generator.config)]
    if tokenizers[0] is None or tokenizers[0] != tokenizers[1]:
        sources = [one.data.source for one in (config, trained.generator.config)]
        raise UserError(
            f"{where} learned the words of {sources[0]}, and the model those of {sources[1]}, by another tokenizer: "
            "name a CLIP that was trained on captions by the same one."
        )
    log.info("of %d images of each text the one is kept that %s at step %d finds nearest", draws, workdir, found.step)
    both = {**trained.model.params, **{f"{OF_JUDGE}{name}": x for name, x in found.model.params.items()}}
    generator = trained.generator.changed(Reranked(method, judge, draws), {})
    return dataclasses.replace(trained, generator=generator, model=dataclasses.replace(trained.model, params=both))


def _tokenizer(config: ConfigDict) -> Any:
    return base_tokenizer(config) or own_tokenizer(config)
