"""Gives classes of pixels colours that are told apart easily."""

from __future__ import annotations

import colorsys

import numpy as np

GOLDEN = 0.61803398875  # hues at this distance, in turns, are spread evenly, however many there are
NAMED = ((0, 0, 0), (230, 60, 60), (60, 180, 75), (70, 110, 235), (250, 190, 40), (170, 70, 200), (70, 210, 220),
         (245, 130, 48), (240, 130, 190), (170, 210, 60), (120, 80, 40), (150, 150, 150))  # fmt: skip


def class_colours(count: int) -> np.ndarray:
    """Returns uint8 `[count, 3]`, one colour for each class; class 0, which is mostly the ground, is black."""
    further = (
        [round(255 * part) for part in colorsys.hsv_to_rgb(i * GOLDEN % 1, 0.55 + 0.4 * (i % 2), 0.95)]
        for i in range(max(0, count - len(NAMED)))
    )
    return np.array([*NAMED, *further], np.uint8)[:count]
