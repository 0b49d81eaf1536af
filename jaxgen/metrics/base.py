"""The contract of a metric says what it needs, which way is better, and how its number is made and recorded.

A metric is a class. Its name in `config.evaluate.metrics`, and in `--metrics` of `python -m jaxgen.metrics`, is the
class's in snake case; its fields are its options. Most derive from `SetMetric`, which has one function to fill in.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from jaxgen.errors import UserError
from jaxgen.metrics.moments import UNKNOWN
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score
from jaxgen.metrics.summary import Summary
from jaxgen.registry import config_name

if TYPE_CHECKING:
    from jaxgen.metrics.images import EvaluationImages

# What a metric may need, in words. The first four come from the feature network.
NEEDS = {
    "moments": "a feature network",
    "features": "a feature network",
    "probabilities": "a feature network that gives class probabilities",
    "maps": "a feature network that gives spatial features",
    "labels": "the labels that the samples were asked for",
    "training images": "the images that a model learned from",
    "pairs": "images in pairs",
    "captions": "a caption for each image",
    "images": "held-out images of a run",
    "truth": "a held-out example for each sample",
    "hints": "a condition that a corruption makes of an image",
    "mask": "a condition with a mask of what is unknown",
    "video": "samples that are videos",
    "conditions": "a condition that the samples are drawn under",
}
OF_NETWORK = ("moments", "features", "probabilities", "maps")


class Value(NamedTuple):
    """Holds a number and its standard deviation.

    Attributes:
      value: the number.
      std: its standard deviation over subsets or splits, or None.
    """

    value: float
    std: float | None = None


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """Holds what is known of a run before it is trained.

    Attributes:
      shape: `(H, W, C)` of the data's images.
      truth: the entry of held-out examples that is the true one of a sample: "image", or what else the method gives.
      source: the name of the held-out data.
      entries: the names of their entries.
      hints: the conditions that corruptions make as pictures.
      masked: whether corruptions make a mask too, so that a part of each image is unknown.
      labelled: whether the model is asked for labels; samples are otherwise held against those of their examples.
    """

    shape: tuple[int, int, int]
    truth: str
    source: str
    entries: frozenset[str]
    hints: tuple[str, ...]
    masked: bool = False
    labelled: bool = True

    def need(self, entry: str, metric: Metric) -> None:
        """Raises a UserError where the held-out examples do not have an entry that a metric reads."""
        if entry not in self.entries:
            raise UserError(
                f"{metric.name!r} reads the entry {entry!r} of held-out examples, and those of {self.source} have "
                f"{', '.join(sorted(self.entries))}; use other data, or leave it out."
            )


class Metric:
    """A metric computes a number, or several, about images.

    Attributes:
      needs: keys of `NEEDS`.
      measures: what it can be of: "image", "video", "mask", "embedding", "tokens", as `Method.gives` has them.
      better: which way a model gets better; None where neither is.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    measures: ClassVar[frozenset[str]] = frozenset({"image"})
    better: Literal["lower", "higher"] | None = "lower"

    @property
    def note(self) -> str:
        """Returns a sentence for readers, kept with each number; a class may set a plain string instead."""
        return ""

    @property
    def least(self) -> int:
        """Returns the number of images that the metric needs of each set; a class may set a plain number instead."""
        return 1

    @property
    def name(self) -> str:
        """Returns the name that a config gives the metric."""
        return config_name(type(self))

    def check(self, network: FeatureNetwork) -> None:
        """Raises a UserError where the metric is not defined in a network's features. Reads no weights."""


class RunMetric(Metric, abc.ABC):
    """This class is for metrics of a trained model's samples, which `config.evaluate.metrics` may name."""

    @property
    def numbers(self) -> tuple[str, ...]:
        """Returns the names of its numbers, where these do not depend on the network; () where nothing is said of them.

        A class may set a plain tuple instead.
        """
        return ()

    def numbers_of(self, facts: RunFacts) -> tuple[str, ...]:
        """Returns `numbers`, of which some may be there for some runs alone."""
        return self.numbers

    @property
    def repeated(self) -> tuple[int, int]:
        """Returns how many conditions are needed with several samples each, and how many samples each; (0, 1) for none.

        `EvaluationImages.draws` holds them.
        """
        return 0, 1

    def check_run(self, facts: RunFacts) -> None:
        """Raises a UserError where a run cannot give the number. It is called before training."""

    @abc.abstractmethod
    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        """Returns the number, or several of them, by their names in `metrics.json`.

        Args:
          network: the feature network that the config names for it, or None where it needs none.

        Raises:
          UserError: for too few images, or what else it needs and there is none of.
        """


class SetMetric(RunMetric):
    """A set metric computes a number of a set of samples as a network sees it, mostly against a set of real images.

    Attributes:
      against: whether the reference has a part in it.
      of_network: whether its name ends in the network's (`precision_digits`), which the published Inception's does not.
      floor: the real images that show what a perfect model scores: "floor", further ones compared with the reference;
      or "reference", the
        reference itself.
      scores_noise: whether its number for noise says how bad it can get.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    against: ClassVar[bool] = True
    of_network: ClassVar[bool] = True
    floor: ClassVar[Literal["floor", "reference"]] = "floor"
    scores_noise: ClassVar[bool] = True

    @property
    def least(self) -> int:
        return 2

    @abc.abstractmethod
    def value(self, samples: Summary, reference: Summary) -> Value:
        """Returns the number of the samples beside a reference; both hold what `needs` names."""

    def number(self, network: FeatureNetwork) -> str:
        """Returns the number's name in `metrics.json`."""
        return f"{self.name}_{network.name}" if self.of_network and not network.published else self.name

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        """Returns the scores; see `RunMetric.scores`. The floor is of as many training images as there are samples."""
        if network is None:
            raise UserError(f"{self.name} needs a feature network, and none is given.")
        sides, reference_name = images.sides(network, statistics=self.needs == {"moments"})
        return {self.number(network): self.score(sides, network, reference_name)}

    def score(self, sides: Mapping[str, Summary], network: FeatureNetwork, reference_name: str) -> Score:
        """Returns the number together with all that it is compared with.

        Args:
          sides: "samples" and "reference"; also "floor", further real images, and "noise", where there are any.
          network: the network that gave the features.
          reference_name: data set, split and size of the reference.

        Raises:
          UserError: for too few images, and probabilities, features or labels that are not there.
        """
        self.check_sides(sides, network)
        measured, std = self.value(sides["samples"], sides["reference"])
        real = self._of(sides, self.floor)
        noise = self._of(sides, "noise") if self.scores_noise else None
        same = real is not None and real == noise
        return Score(
            measured,
            n=sides["samples"].n,
            reference=reference_name if self.against else "",
            floor=real,
            noise=None if same else noise,
            better=self.better,
            note=self.note + (f" Noise scores {real:.3g} as well." if same else ""),
            std=std,
            reference_n=sides["reference"].n if self.against and sides["reference"].n != UNKNOWN else None,
            floor_n=sides[self.floor].n if real is not None else None,
            network=network.name,
            digest=network.digest,
            resize=network.resize,
            published=network.published,
        )

    def _of(self, sides: Mapping[str, Summary], side: str) -> float | None:
        """Returns the number of another side in the samples' place; None where that is not there or has no labels."""
        if side not in sides or ("labels" in self.needs and sides[side].labels is None):
            return None
        return self.value(sides[side], sides["reference"]).value

    def check_sides(self, sides: Mapping[str, Summary], network: FeatureNetwork) -> None:
        """Raises what `score` raises, and computes nothing."""
        self.check(network)
        for side, summary in sides.items():
            if summary.n < self.least and (self.against or side == "samples"):
                raise UserError(
                    f"{self.name} needs at least {self.least} images on each side; the {side} are {summary.n}."
                )
            if "probabilities" in self.needs and summary.probabilities is None:
                raise UserError(
                    f"{self.name} needs class probabilities, which the network {network.name!r} does not give."
                )
            if "features" in self.needs and summary.features is None:
                raise UserError(f"{self.name} needs the features themselves; only the moments of the {side} were kept.")
        if "labels" in self.needs and sides["samples"].labels is None:
            raise UserError(f"{self.name} needs {NEEDS['labels']}.")
