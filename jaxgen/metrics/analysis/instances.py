"""Tells objects of one class apart, such as touching nuclei, and measures how well they were told apart.

A map of instances is int `[H, W]`: 0 where there is none, and else the number of the object. A network of classes of
pixels says where objects are in three `LAYERS`, which are steps of each object's own distance map: the ground, the rim
and the core. Cores of touching objects are apart, so that a watershed which begins with them finds the objects.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from jaxgen.errors import UserError

LAYERS = ("ground", "rim", "core")
THRESHOLDS = tuple(float(t) for t in np.round(np.arange(0.5, 1.0, 0.05), 2))  # of the mean average precision


def layers_of(instances: Int[np.ndarray, "H W"], core: float = 0.5) -> Int[np.ndarray, "H W"]:
    """Returns the number of the layer of each pixel: 0 the ground, 1 the rim, 2 the core of an object.

    A pixel belongs to the core where its distance to the border of its object is at least the share `core` of the
    largest distance in that object. The edge of the picture is no border. Every object has a core.
    """
    found = np.zeros(instances.shape, np.int32)
    for number, box in enumerate(ndimage.find_objects(instances), 1):
        if box is None:
            continue
        rows, columns = (slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        own = instances[rows, columns] == number
        if own.all():
            found[rows, columns] = 2  # it fills the picture
            continue
        distance = ndimage.distance_transform_edt(own)
        found[rows, columns] += np.where(own, 1 + (distance >= core * distance.max()), 0).astype(np.int32)
    return found


def instances_of(layers: Int[np.ndarray, "H W"], least: int = 4) -> Int[np.ndarray, "H W"]:
    """Returns the instances of a map of layers: a watershed from the connected cores over rims and cores.

    A connected region without a core is one object. Objects of fewer than `least` pixels are left out.

    Raises:
      UserError: scikit-image is not installed.
    """
    try:
        from skimage.segmentation import watershed
    except ImportError as error:
        raise UserError(
            "A watershed is made by scikit-image, which is not installed: pip install scikit-image."
        ) from error
    objects = layers > 0
    markers, count = ndimage.label(layers == 2, structure=np.ones((3, 3)))
    regions, _ = ndimage.label(objects)
    without = np.setdiff1d(np.unique(regions), np.unique(regions[layers == 2]))
    for region in without[without > 0]:
        count += 1
        markers[regions == region] = count
    found = watershed(-ndimage.distance_transform_edt(objects), markers, mask=objects)
    return relabelled(np.where(np.isin(found, np.flatnonzero(np.bincount(found.ravel()) >= least)), found, 0))


def relabelled(instances: Int[np.ndarray, "H W"]) -> Int[np.ndarray, "H W"]:
    """Returns the instances with the numbers 1, 2, 3, ..., in their order."""
    numbers, places = np.unique(instances, return_inverse=True)
    first = 0 if numbers[0] == 0 else 1
    return (places.reshape(instances.shape) + first).astype(np.int32)


def overlaps(
    truth: Int[np.ndarray, "H W"], found: Int[np.ndarray, "H W"]
) -> tuple[Int[np.ndarray, "T F"], Int[np.ndarray, " T"], Int[np.ndarray, " F"]]:
    """Returns the shared pixels of each true and each found object, and the pixels of each.

    Raises:
      UserError: the two differ in size.
    """
    if truth.shape != found.shape:
        raise UserError(f"Maps of instances are compared at one size, not {truth.shape} and {found.shape}.")
    truth, found = relabelled(truth), relabelled(found)
    sizes = truth.max(initial=0) + 1, found.max(initial=0) + 1
    table = np.bincount(truth.ravel() * sizes[1] + found.ravel(), minlength=sizes[0] * sizes[1]).reshape(sizes)
    return table[1:, 1:], table[1:].sum(1), table[:, 1:].sum(0)


def aggregated_jaccard(truth: Int[np.ndarray, "H W"], found: Int[np.ndarray, "H W"]) -> float:
    """Returns the aggregated Jaccard index, AJI (Kumar et al. 2017, algorithm 1); 1 where both are empty.

    Every true object is held against the found one with the highest intersection over union; what they share is
    divided by what they cover, over all objects, and found objects that nobody chose count as covered.
    """
    shared, of_truth, of_found = overlaps(truth, found)
    if not len(of_truth) and not len(of_found):
        return 1.0
    if not len(of_truth) or not len(of_found):
        return 0.0
    union = of_truth[:, None] + of_found[None] - shared
    chosen = (shared / union).argmax(axis=1)
    rows = np.arange(len(of_truth))
    met = shared[rows, chosen] > 0
    intersection = shared[rows, chosen][met].sum()
    covered = union[rows, chosen][met].sum() + of_truth[~met].sum()
    unused = np.setdiff1d(np.arange(len(of_found)), chosen[met])
    return float(intersection / (covered + of_found[unused].sum()))


def matches(
    truth: Int[np.ndarray, "H W"], found: Int[np.ndarray, "H W"], thresholds: tuple[float, ...] = THRESHOLDS
) -> Int[np.ndarray, "K 3"]:
    """Returns how many objects were found, were found without being there, and were missed, at each threshold.

    A found object is right if its intersection over union with a true one exceeds the threshold. From 0.5 on, an
    object has one such partner at most. Counts of pictures are added before `average_precision`.

    Raises:
      UserError: a threshold below 0.5, or the two differ in size.
    """
    if min(thresholds) < 0.5:
        raise UserError(f"Objects are matched at an intersection over union of 0.5 or more, not {min(thresholds):g}.")
    shared, of_truth, of_found = overlaps(truth, found)
    union = of_truth[:, None] + of_found[None] - shared
    right = np.array([(shared > t * union).sum() for t in thresholds])
    return np.stack([right, len(of_found) - right, len(of_truth) - right], axis=1)


def average_precision(counts: Int[np.ndarray, "K 3"]) -> Float[np.ndarray, " K"]:
    """Returns right / (right + wrong + missed) at each threshold, as the 2018 Data Science Bowl did; 1 of nothing."""
    total = counts.sum(axis=1)
    return np.where(total > 0, counts[:, 0] / np.maximum(total, 1), 1.0)
