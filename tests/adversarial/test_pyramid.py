"""The scales of one picture: their sizes, what is too small for them, and the resizing between them."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxgen.adversarial.pyramid import check_sizes, ratio, resized, sizes
from jaxgen.adversarial.sampling import Pyramid
from jaxgen.errors import UserError


@pytest.mark.parametrize("size", [(96, 128), (128, 96), (64, 64), (40, 250)])
def test_the_coarsest_scale_has_the_shorter_side_that_is_asked_for_and_all_keep_the_aspect(size):
    found = sizes(size, ratio(size, 25, 6), 6)
    assert found[-1] == size and min(found[0]) == 25 and len(found) == 6
    for height, width in found:
        assert abs(width / height - size[1] / size[0]) < 0.03 * size[1] / size[0]
    shares = [min(b) / min(a) for a, b in zip(found, found[1:], strict=False)]
    assert max(shares) - min(shares) < 0.1  # equal, but for whole pixels


def test_one_scale_is_the_picture():
    assert sizes((7, 9), ratio((7, 9), 25, 1), 1) == ((7, 9),)
    check_sizes((7, 9), 25, 1)


@pytest.mark.parametrize(
    ("size", "coarsest", "scales", "named"),
    [
        ((128, 1), 25, 8, "too small for its scales"),  # one pixel wide
        ((25, 60), 25, 2, "too small for its scales"),
        ((30, 60), 25, 8, "two of them would have 26x53 pixels"),
    ],
)
def test_a_picture_that_is_too_small_is_refused_by_its_size(size, coarsest, scales, named):
    with pytest.raises(UserError, match=f"{size[0]}x{size[1]} pixels.*{named}"):
        check_sizes(size, coarsest, scales)


def test_resizing_keeps_what_is_smooth_and_smooths_what_is_not():
    ramp = np.broadcast_to(np.linspace(-0.5, 0.5, 40, dtype=np.float32)[None, None, :, None], (1, 30, 40, 1))
    board = np.float32(np.indices((30, 40)).sum(0) % 2 * 2 - 1)[None, :, :, None]
    small = jax.jit(lambda x: resized(x, (15, 20)))
    there_and_back = jax.jit(lambda x: resized(x, (30, 40)))(small(ramp))
    np.testing.assert_allclose(there_and_back[:, 4:-4, 4:-4], ramp[:, 4:-4, 4:-4], atol=1e-3)
    assert np.abs(small(board)).max() < 0.2  # a board of single pixels is grey from afar
    assert resized(ramp, (30, 40)) is ramp


def test_a_sampler_of_scales_refuses_what_does_not_fit():
    for options, named in (
        (dict(size=(0, 4)), "config.sampler.size"),
        (dict(start=-1), "config.sampler.start"),
        (dict(size=(8, 8), start=1), "leave config.sampler.size out"),
    ):
        with pytest.raises(UserError, match=named):
            Pyramid(**options)
