"""Tests the numbers of translations on pictures whose numbers are known. That runs translate, running it shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.methods.base import Model
from jaxgen.methods.translation.cyclegan import CycleGAN
from jaxgen.networks.gans.patchgan import PatchDiscriminator
from jaxgen.networks.translation.resnet import TranslationResNet
from studies.translation import Misled, cycle_row, pair_row, slopes


@pytest.fixture(scope="module")
def truth():
    return open_source("shapes", "test", 16, 3).take(range(40))["image"]


def test_true_pictures_have_no_error_and_others_have_one(truth):
    row = pair_row(truth, truth)
    assert row["L1"] == row["features"] == 0 and abs(row["Frechet"]) < 1e-8 and row["slopes"] == 1
    other = pair_row(np.roll(truth, 1, axis=0), truth)
    assert other["L1"] > 10 and other["features"] > 0.1
    assert abs(other["Frechet"]) < 1e-6 and other["slopes"] == 1  # the same pictures, in another order
    grey = np.broadcast_to(truth.mean((1, 2), keepdims=True), truth.shape).astype(np.uint8)
    assert slopes(grey) == 0 and pair_row(grey, truth)["Frechet"] > 0.01


class Inverse(CycleGAN):
    """Translates by inverting, both ways: its cycles return exactly."""

    def translate(self, params, to, pictures):
        return -pictures


class Wrong(Misled, Inverse):
    """The same, with colours in another order."""


def test_colours_in_another_order_are_as_consistent_and_wrong(truth):
    networks = {"generator": TranslationResNet(3), "discriminator": PatchDiscriminator()}
    image = jnp.asarray(truth, jnp.float32) / 127.5 - 1
    model, batch = Model({}, {}), {"image": image, "style": -image}
    right, wrong = (
        cycle_row(kind(**networks, image_shape=(16, 16, 3), truth="style"), model, batch, 20)
        for kind in (Inverse, Wrong)
    )
    for row in (right, wrong):
        assert row["cycle_l1_image"] < 1e-6 and row["cycle_l1_other"] < 1e-6
    assert right["accuracy_to_image"] == right["accuracy_to_other"] == 1
    assert wrong["accuracy_to_image"] < 0.6 and wrong["l1_to_image"] > 0.1
    assert jax.tree.leaves(model.params) == []
