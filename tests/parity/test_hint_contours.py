"""Contours by Canny's method, which scikit-image makes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxgen.data.hints import Contours, main

pytestmark = pytest.mark.parity


def square():
    """A red square of 20 pixels on black."""
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 10:30] = (255, 0, 0)
    return image


def test_they_are_the_closed_and_thin_outline_of_a_square():
    found = Contours()(square()) > 0
    inside = np.zeros((40, 40), bool)
    inside[10:30, 10:30] = True
    border = ndimage.binary_dilation(inside) & ~ndimage.binary_erosion(inside)
    assert found.any() and not (found & ~border).any()
    filled = ndimage.binary_fill_holes(found)
    assert 18**2 <= filled.sum() <= 22**2
    assert not ndimage.binary_erosion(found, np.ones((3, 3))).any()
    assert not Contours()(np.full((20, 20, 3), 90, np.uint8)).any()


def test_thresholds_leave_weak_edges_out():
    faint = (square() * 0.1).astype(np.uint8)
    assert Contours(low=0.001, high=0.002)(faint).any() and not Contours()(faint).any()


def test_the_command_uses_them(tmp_path, capsys):
    Image.fromarray(square()).save(tmp_path / "a.png")
    assert main([str(tmp_path)]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "hint" / "a.png")), Contours()(square()))
