"""Reads the classes of the pixels of `regions` from images: the labeller makes no use of a network."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8

from jaxgen.data.sources.regions import hues


def read_regions(images: UInt8[np.ndarray, "N H W 3"], classes: int) -> Int[np.ndarray, "N H W"]:
    """Returns the class of each pixel: that whose hue is nearest to the pixel's, however bright or pale this is.

    The hue is the direction of the two differences of colours that a grey pixel has none of; for a pixel without hue it
    is class 0.
    """
    # two axes at a right angle, in which the six pure colours lie on a hexagon
    across = np.array([[1, -0.5, -0.5], [0, np.sqrt(0.75), -np.sqrt(0.75)]])
    directions = hues(classes) @ across.T
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return (images.astype(np.float32) @ (directions @ across).T.astype(np.float32)).argmax(axis=-1).astype(np.int32)
