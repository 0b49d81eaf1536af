"""Two pictures of one solid agree with each other, and less so with what is not there; correlations are NumPy's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.data.sources.solids.casting import Placed
from jaxgen.data.sources.solids.solids import render
from jaxgen.geometry import agreement, cameras

TURNS = np.arange(3) * 2.0
HERE = cameras.look_at_origin(TURNS, np.full(3, 0.5))
ASIDE = cameras.turned(HERE, np.pi / 6)


def seen(camera, colour=0):
    """A cube, by three cameras."""
    shown = [render((Placed("cube", 0.6),), (colour,), one, (32, 32)) for one in camera]
    image = np.stack([one["image"] for one in shown]).astype(np.float32) / 127.5 - 1
    depth = np.stack([one["depth"] for one in shown])
    return agreement.View(image, depth, (depth > 0).astype(np.float32), camera.astype(np.float32))


def test_a_turned_camera_is_one_of_another_azimuth():
    np.testing.assert_allclose(ASIDE, cameras.look_at_origin(TURNS + np.pi / 6, np.full(3, 0.5)), atol=1e-12)


def test_two_views_of_a_solid_agree_and_those_of_others_do_not():
    compare = jax.jit(agreement.reprojection)
    here, aside, other = seen(HERE), seen(ASIDE), seen(ASIDE, 1)
    error, share = compare(here, here)
    assert (error < 1e-3).all() and np.allclose(share, here.opacity.mean((1, 2, 3)), atol=0.02)
    error, share = compare(here, aside)
    assert (error < 0.05).all() and (share > 0.3 * here.opacity.mean((1, 2, 3))).all()
    recoloured, share_again = compare(here, other)
    assert (recoloured > 0.2).all() and np.array_equal(share, share_again)
    deeper = aside._replace(depth=aside.depth + 0.3)
    error, share = compare(here, deeper)
    assert (share < 0.05).all() and np.isfinite(error).all()  # a surface that lies elsewhere is another one


def test_correlations_are_those_of_numpy():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 3, 4, 4, 1)).astype(np.float32)
    found = agreement.correlation(jnp.asarray(one), jnp.asarray(other))
    wanted = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_array_equal(agreement.correlation(jnp.ones((2, 3)), jnp.asarray(other[:2, 0, :3, 0])), [0, 0])
