"""Tests the numbers of latent spaces on a generator whose images are known. That a run is measured, running shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.editing.style_space.path_length import path_lengths
from jaxgen.errors import UserError
from studies.style_space import Spaces, at_change, brightness, warmth

LAYERS = 4


class Network:
    layers, z_dim, image_shape = LAYERS, 3, (2, 2, 1)


@jax.tree_util.register_static
class Plain:
    """A generator whose image is the first number of the coarse style above and of the fine one below."""

    network = Network()

    def __init__(self, fold: float):
        self.fold = fold  # how often the mapping turns round between two z

    def draw_z(self, keys):
        return jax.vmap(lambda key: jax.random.uniform(key, (3,), minval=-0.4, maxval=0.4))(keys)

    def mapping(self, z):
        return jnp.sin(self.fold * z)

    def broadcast(self, w):
        return jnp.repeat(w[:, None], LAYERS, 1)

    def noise_maps(self, keys):
        return ()

    def paint(self, styles, noise):
        rows = jnp.stack([styles[:, 0, 0], styles[:, -1, 0]], 1)
        return jnp.broadcast_to(rows[:, :, None, None], (len(styles), 2, 2, 1))

    def spread(self):
        return type("Spread", (), {"mean": jnp.zeros(3)})


def squared(a, b):
    return jnp.square(a - b).mean((1, 2, 3))


LOSS = jax.tree_util.Partial(squared)


@pytest.mark.slow
def test_a_line_in_w_is_as_long_as_its_slope_and_a_folded_way_in_z_is_longer():
    spaces = Spaces(Plain(20.0), LOSS, 100)
    w, z = spaces.path_length("w"), spaces.path_length("z")

    @jax.jit
    def ends(keys):
        own = jax.vmap(lambda key: jax.random.split(key, 4))(keys)
        return [spaces.model.mapping(spaces.model.draw_z(own[:, i]))[:, 0] for i in (0, 1)]

    a, b = ends(spaces.keys(1))
    assert w["mean"] == pytest.approx(np.square(a - b).mean(), rel=0.02)
    assert z["mean"] > 3 * w["mean"]
    with pytest.raises(UserError, match="not in 'w_plus'"):
        path_lengths(spaces.model, spaces.keys(1), LOSS, "w_plus")


def test_variance_grows_with_the_square_of_psi_and_each_half_of_layers_has_its_label():
    spaces = Spaces(Plain(1.0), LOSS, 100)
    one, half, none = (spaces.truncation(psi)["variance"] for psi in (1.0, 0.5, 0.0))
    assert none == 0 and one == pytest.approx(4 * half, rel=0.05)
    found = spaces.swap(2, lambda images: {"above": images[:, 0, 0, 0] > 127, "below": images[:, 1, 0, 0] > 127})
    assert found["coarse (above)"] == found["fine (below)"] == 1
    assert found["fine (above)"] == found["coarse (below)"] == 0 and 20 < found["pairs (above)"] < 80


def test_warmth_is_of_hue_and_brightness_hides_it():
    colours = np.array([[200, 0, 0], [0, 0, 200], [90, 90, 90], [0, 0, 0]], np.uint8)
    images = np.broadcast_to(colours[:, None, None], (4, 2, 2, 3))
    np.testing.assert_allclose(warmth(images), [1, -1, 0, 0])
    assert (brightness(images)[0] == brightness(images)[1]).all() and (brightness(images)[2] == 90).all()


def test_a_distance_is_read_where_the_change_is_first_reached():
    changes, distances = np.array([0.0, 1.0, 0.5, 3.0]), np.array([0.0, 4.0, 9.0, 14.0])
    assert at_change(changes, distances, 0.25) == 1 and at_change(changes, distances, 1.0) == 4
    assert at_change(changes, distances, 1.75) == 11.5  # halfway from the third to the fourth
    assert np.isnan(at_change(changes, distances, 3.1))


class Coloured(Plain):
    """Its hue is the first number of the first style; its brightness follows it, too, by the last style's third."""

    network = type("Network", (), {"layers": LAYERS, "z_dim": 3, "image_shape": (2, 2, 3)})()

    def paint(self, styles, noise):
        hue = styles[:, 0, 0]
        level = 0.5 + 0.3 * styles[:, -1, 2] * hue
        colour = jnp.stack([level * jnp.clip(1 + hue, 0, 1), 0 * level, level * jnp.clip(1 - hue, 0, 1)], 1)
        return jnp.broadcast_to(colour[:, None, None] * 2 - 1, (len(styles), 2, 2, 3))


@pytest.mark.slow
def test_a_code_whose_brightness_follows_its_hue_is_farther_at_equal_change():
    spaces = Spaces(jax.tree_util.register_static(Coloured)(1.0), LOSS, 100)
    code = spaces.styles(9)[:8] * 0.1
    leaking = code.copy()
    code[:, -1, 2], leaking[:, -1, 2] = 0, 1
    rows = list(spaces.edit({"w": code, "w_plus": leaking}))
    assert [row["change"] for row in rows] == [0.5, 1.0, 1.5] and rows[0]["reached"] == 8
    assert rows[0]["distance in w"] < rows[0]["distance in w_plus"] and rows[0]["W keeps"] >= 0.8
    assert rows[0]["distance in w_plus"] < rows[1]["distance in w_plus"]
