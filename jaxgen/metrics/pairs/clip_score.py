"""The CLIP score says how well images fit their texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from jaxgen.errors import UserError
from jaxgen.metrics.base import RunFacts
from jaxgen.metrics.networks.clip import Clip
from jaxgen.metrics.pairs.base import CaptionMetric
from jaxgen.metrics.score import Score
from jaxgen.metrics.sets import ImageBatch
from jaxgen.metrics.summary import summarise


@dataclasses.dataclass(frozen=True)
class ClipScore(CaptionMetric):
    """The CLIP score is the scaled positive part of the cosine of an image and its caption; see `clip_score`."""

    weights: str = ""  # a folder of CLIP and its tokenizer; "" finds or fetches the published ones
    scale: float = 100.0  # 100, as text-to-image papers report, or 2.5, as Hessel et al. have it

    def check_run(self, facts: RunFacts) -> None:
        super().check_run(facts)
        Clip(self.weights).open()  # reads the weights, so that they are not missed after training

    def score(self, batches: Iterable[ImageBatch], captions: Sequence[str], batch: int = 100) -> Score:
        clip = Clip(self.weights)
        seen = summarise(lambda images: clip.see(images, batch), batches, keep=True)
        cosine = cosines(seen.kept_features, clip.embed_texts(captions, batch))
        values = self.scale * np.maximum(cosine, 0)
        note = f"{self.scale:g} max(cos, 0); {(cosine < 0).mean():.3g} of the pairs count as 0."
        return Score(
            float(values.mean()), len(values), "captions", better="higher", note=note, std=float(values.std()),
            network=clip.name, digest=clip.digest, resize=clip.resize, published=True,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CaptionScores:
    """Holds a CLIP score and the scores of its pairs.

    Attributes:
      name: the name of the score, with its scale.
      mean: the mean over the pairs.
      values: float64 `[N]`, the score of each pair.
      saturated: the share of pairs whose cosine was negative, so that they count as 0.
    """

    name: str
    mean: float
    values: Float[np.ndarray, " N"]
    saturated: float


def clip_score(
    clip: Clip,
    images: UInt8[np.ndarray, "N H W C"],
    texts: Sequence[str],
    scale: float = 100.0,
    prefix: str = "",
    batch: int = 64,
) -> CaptionScores:
    """Returns scale max(cos(image, text), 0) of each of N images with its text (Hessel et al. 2021, Eq. 1).

    Args:
      images: uint8 `[N, H, W, C]`.
      texts: one text for each image.
      scale: 100, as text-to-image papers report, or 2.5, as Hessel et al. have it.
      prefix: text that is put before each text; Hessel et al. have "A photo depicts ".

    Raises:
      UserError: for unequal numbers, or another scale.
    """
    if isinstance(texts, str) or len(texts) != len(images):
        count = "one text" if isinstance(texts, str) else f"{len(texts)} texts"
        raise UserError(f"The CLIP score needs a text for each image, not {len(images)} images and {count}.")
    if scale not in (100.0, 2.5):
        raise UserError(f"The CLIP score has a scale of 100 or 2.5, not {scale}: others compare with no paper's.")
    image = clip(images, batch).features
    text = clip.embed_texts([prefix + text for text in texts], batch)
    cosine = cosines(image, text)
    values = scale * np.maximum(cosine, 0.0)
    saturated = float((cosine < 0).mean())
    return CaptionScores(f"{scale:g} max(cos, 0), {clip.model}", float(values.mean()), values, saturated)


def cosines(a: Float[np.ndarray, "N D"], b: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    """Returns the cosine, float64 `[N]`, of each row of `[N, D]` with the same row of another array."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
