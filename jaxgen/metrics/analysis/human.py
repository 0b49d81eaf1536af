"""Computes from people's answers how often a generated image was taken for the real one of a pair.

A person sees a generated and a held-out image side by side and says which is real (two-alternative forced choice). The
*fool rate* is the share of pairs in which the generated one was chosen: 0 when all are seen through, 1/2 when the two
cannot be told apart. HYPE (Zhou et al. 2019) reads its error rate on the same scale, of images shown one by one.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Answers:
    """Holds one person's answers to one quiz.

    Attributes:
      fooled: bool `[N]`, a pair each: whether the generated image was taken for the real one.
      milliseconds: float64 `[N]`, from the pair's appearance to the choice.
      quiz: a digest of the quiz's images and their order.
      details: what the quiz says about the run.
      limit_ms: how long a pair was shown, in milliseconds; 0 is without limit.
      name: where the answers came from, for messages.
    """

    fooled: Bool[np.ndarray, " N"]
    milliseconds: Float[np.ndarray, " N"]
    quiz: str = ""
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    limit_ms: int = 0
    name: str = ""


@dataclasses.dataclass(frozen=True)
class FoolRate:
    """Holds a fool rate with its interval and the counts behind it.

    Attributes:
      value: the share of pairs in which the generated image was taken for real.
      low, high: its Wilson interval.
      fooled, pairs: the counts behind it.
      median_ms: the median time for a choice, in milliseconds.
    """

    value: float
    low: float
    high: float
    fooled: int
    pairs: int
    median_ms: float


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Returns the score interval of a share (Wilson 1927), which is sound at 0, at 1 and for few trials.

    It holds all p for which the normal test of `successes` against p, with p's own variance and without continuity
    correction, does not reject p.

    Args:
      confidence: the two-sided confidence, in (0, 1).

    Raises:
      UserError: no trials, more successes than trials, or a confidence outside (0, 1).
    """
    if not 0 <= successes <= trials or trials < 1:
        raise UserError(f"A share needs 0 <= successes <= trials and a trial, not {successes} of {trials}.")
    if not 0 < confidence < 1:
        raise UserError(f"A confidence is between 0 and 1, but this one is {confidence}.")
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = successes / trials, z * z / trials
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == trials else min(1.0, centre + half)


def fool_rate(answers: Answers | Sequence[Answers], confidence: float = 0.95) -> FoolRate:
    """Returns the fool rate of one person's answers, or of several people's together, each pair counting once.

    The interval takes choices for independent. Those of one person are alike, and so are those about one image: with
    few people, or few images, it is too narrow.

    Raises:
      UserError: no answers; or answers that are not about the same run under the same time limit, or that are there
        twice.
    """
    people = [answers] if isinstance(answers, Answers) else list(answers)
    if not sum(len(one.fooled) for one in people):
        raise UserError("There are no answers to take a fool rate of.")
    for i, one in enumerate(people):
        for other in people[:i]:
            _check_together(other, one)
    fooled = np.concatenate([one.fooled for one in people])
    times = np.concatenate([one.milliseconds for one in people]).astype(np.float64)
    count = int(fooled.sum())
    low, high = wilson_interval(count, len(fooled), confidence)
    return FoolRate(count / len(fooled), low, high, count, len(fooled), float(np.median(times)))


def _check_together(one: Answers, other: Answers) -> None:
    if one.details != other.details:
        keys = sorted({*one.details, *other.details})
        key = next(key for key in keys if one.details.get(key) != other.details.get(key))
        raise UserError(
            f"{one.name} and {other.name} are about different models ({key}: {one.details.get(key)!r} and "
            f"{other.details.get(key)!r}): take their fool rates one by one."
        )
    if one.limit_ms != other.limit_ms:
        raise UserError(
            f"{one.name} and {other.name} were shown for different times ({one.limit_ms} and {other.limit_ms} ms, "
            "0 being without limit): take their fool rates one by one."
        )
    same = one.quiz == other.quiz and np.array_equal(one.fooled, other.fooled)
    if same and np.array_equal(one.milliseconds, other.milliseconds):
        raise UserError(f"{one.name} and {other.name} are the same answers: leave one of them out.")
