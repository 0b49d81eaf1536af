"""Numbers of images in pairs: how far each image of one set is from its partner in the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from jaxgen.errors import UserError
from jaxgen.metrics.distances import l2_distance
from jaxgen.metrics.evidence import Score
from jaxgen.metrics.features import FeatureNetwork
from jaxgen.metrics.pixels import WINDOWS, absolute_error, psnr, squared_error, ssim
from jaxgen.metrics.sets import ImageBatch, ImageSet
from jaxgen.metrics.summary import Summary


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Attributes:
    function: uint8 `[N, H, W, C]` twice to `[N]`. better: as in `Score`. note: a sentence for readers.
    """

    function: Callable[[np.ndarray, np.ndarray], np.ndarray]
    better: str
    note: str


PIXELS = {
    "psnr": Pixels(psnr, "higher", "In dB, of values up to 255; the mean of the pairs' own."),
    "ssim": Pixels(ssim, "higher", "Gaussian window of 11x11, standard deviation 1.5; mean over channels."),
    "l1": Pixels(absolute_error, "lower", "Mean absolute difference of values up to 255."),
    "l2": Pixels(
        lambda a, b: np.sqrt(squared_error(a, b)), "lower", "Root of the mean squared difference of values up to 255."
    ),
}
PAIRED = (*PIXELS, "lpips", "feature_l2")


def check_pairs(a: ImageSet, b: ImageSet, metrics: Sequence[str]) -> None:
    """Raises a UserError for unequal numbers, and for sizes or channels that pixels cannot be compared in."""
    if a.count != b.count:
        raise UserError(
            f"{', '.join(metrics)} compare images in pairs: {a.name!r} has {a.count} and {b.name!r} {b.count}; give as "
            "many of each, in the order of their names."
        )
    if set(metrics) - {"feature_l2"} and (a.shape is None or a.shape != b.shape):
        sizes = " and ".join("several sizes" if s.shape is None else "x".join(map(str, s.shape)) for s in (a, b))
        raise UserError(f"Pixels are compared in images of one size, not of {sizes}; give --resolution.")
    if "ssim" in metrics and min(a.shape[:2]) < WINDOWS["gaussian"]:
        raise UserError(f"ssim looks through a window of 11x11 pixels; the images of {a.name!r} are smaller.")


def compare_pairs(
    reference: ImageSet,
    pairs: Iterable[tuple[ImageBatch, ImageBatch]],
    metrics: Sequence[str],
    *,
    network: FeatureNetwork | None = None,
    summaries: Mapping[str, Summary] | None = None,
    trunk: str = "alex",
    weights: str = "",
    batch: int = 100,
) -> dict[str, Score]:
    """Means over the pairs of two sets that `check_pairs` has passed, each with the standard deviation between pairs.

    Args:
      reference: the second set. pairs: batches of the two, side by side. metrics: of `PAIRED`.
      network, summaries: for `feature_l2`: the features of "a" and "b" in it. trunk, weights: of LPIPS.

    Raises:
      UserError: for weights that cannot be had, and images that a metric refuses.
    """
    count = reference.count
    common = {"n": count, "reference": f"{reference.name} ({count}), in pairs", "reference_n": count}
    functions = {name: PIXELS[name].function for name in metrics if name in PIXELS}
    lpips = None
    if "lpips" in metrics:
        from jaxgen.metrics.lpips import Lpips

        lpips = Lpips(trunk, weights)
        functions["lpips"] = lambda x, y: lpips(x, y, batch)
    found: dict[str, list[np.ndarray]] = {name: [] for name in functions}
    for x, y in pairs if functions else ():
        for name, function in functions.items():
            found[name].append(function(x, y))
    scores = {}
    for name in metrics:
        if name == "feature_l2":
            values = l2_distance(summaries["a"].features, summaries["b"].features)
            of = {"network": network.name, "digest": network.digest, "resize": network.resize}
            better, note = "lower", "Mean Euclidean distance of the two images' features."
        else:
            values = np.concatenate(found[name])
            of = {}
            better, note = "lower", f"Version 0.1, {trunk}."
            if name in PIXELS:
                better, note = PIXELS[name].better, PIXELS[name].note
            else:
                of = {"network": lpips.name, "digest": lpips.digest, "published": True}
        equal = int(np.isinf(values).sum())
        if equal:
            note += f" {equal} of {len(values)} pairs are equal, where it is infinite."
        std = None if equal else float(values.std())
        scores[name] = Score(float(values.mean()), better=better, note=note, std=std, **common, **of)
    return scores
