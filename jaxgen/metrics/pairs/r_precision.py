"""The R-precision says how often an image's own text is found among others by CLIP."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped

from jaxgen.errors import UserError
from jaxgen.metrics.base import RunFacts
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.networks.clip import Clip
from jaxgen.metrics.pairs.base import CaptionMetric
from jaxgen.metrics.score import Score
from jaxgen.metrics.sets import ImageBatch
from jaxgen.metrics.summary import in_batches, summarise


@dataclasses.dataclass(frozen=True)
class RPrecision(CaptionMetric):
    """The R-precision is the share of images whose text is nearer by CLIP than `others` texts of other images.

    It is the top-1 accuracy of Xu et al. (2018, "AttnGAN", section 4) and Park et al. (2021), who have 99 others. Texts
    that are equal are no others. Chance is 1 / (others + 1). Ties count against it.
    """

    weights: str = ""  # a folder of CLIP and its tokenizer; "" finds or fetches the published ones
    others: int = 99
    same: str = ""  # an entry of held-out examples; texts of equal values mean the same, and are no others
    seed: int = 0  # of the choice of others

    better = "higher"

    def __post_init__(self) -> None:
        if self.others < 1:
            raise UserError(f"R-precision compares a text with others; others={self.others} must be 1 or more.")

    @property
    def least(self) -> int:
        return 2

    def check_run(self, facts: RunFacts) -> None:
        super().check_run(facts)
        if self.same:
            facts.need(self.same, self)
        Clip(self.weights).open()  # reads the weights, so that they are not missed after training

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        captions = [str(text) for text in images.asked["caption"]]
        meaning = np.asarray(images.asked[self.same]) if self.same else None
        return {self.name: self._score(in_batches(images.samples, 100), captions, meaning, 100)}

    def score(self, batches: Iterable[ImageBatch], captions: Sequence[str], batch: int = 100) -> Score:
        return self._score(batches, captions, None, batch)

    def _score(
        self, batches: Iterable[ImageBatch], captions: Sequence[str], meaning: np.ndarray | None, batch: int
    ) -> Score:
        clip = Clip(self.weights)
        seen = summarise(lambda images: clip.see(images, batch), batches, keep=True)
        same = np.asarray([text.strip().lower() for text in captions]) if meaning is None else meaning
        right = r_precision(seen.kept_features, clip.embed_texts(captions, batch), same, self.others, self.seed)
        return Score(
            float(right.mean()), len(right), "captions", noise=1 / (self.others + 1), better="higher",
            note=f"Each text among {self.others} others; noise is chance.", std=float(right.std()), network=clip.name,
            digest=clip.digest, resize=clip.resize, published=True,
        )  # fmt: skip


def r_precision(
    images: Float[np.ndarray, "N D"],
    texts: Float[np.ndarray, "N D"],
    same: Shaped[np.ndarray, "N *K"],
    others: int = 99,
    seed: int = 0,
) -> Bool[np.ndarray, " N"]:
    """Returns whether each image's own text is nearer, by its cosine, than others that are drawn at random.

    Args:
      images, texts: embeddings of any length; row i of one belongs to row i of the other.
      same: what texts mean; those of equal rows are no others for each other.
      others: how many are drawn for each image.
      seed: of the draws.

    Raises:
      UserError: a text has fewer others.
    """
    unit_images, unit_texts = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (images, texts))
    meanings = np.unique(np.asarray(same).reshape(len(texts), -1), axis=0, return_inverse=True)[1].reshape(-1)
    chance, right = np.random.default_rng(seed), np.zeros(len(images), bool)
    for i, image in enumerate(unit_images):
        known = np.flatnonzero(meanings != meanings[i])
        if len(known) < others:
            raise UserError(
                f"R-precision compares each text with {others} others, and text {i} has {len(known)} that say "
                "something else: evaluate more images, or set others lower."
            )
        drawn = chance.choice(known, others, replace=False)
        right[i] = image @ unit_texts[i] > (unit_texts[drawn] @ image).max()
    return right
