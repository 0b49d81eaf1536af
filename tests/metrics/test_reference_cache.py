"""Reference statistics on the disk: read again where nothing changed, made anew where anything did."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.metrics import reference
from jaxgen.metrics.networks.base import Features


@pytest.fixture(name="home")
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "jaxgen" / "reference"


@dataclasses.dataclass
class Counting:
    """Mean and spread of pixels as features; counts its looks."""

    name: str = "counting"
    resize: str = "none"
    digest: str = "ab"
    probabilities: bool = True
    looks: int = 0

    def __call__(self, images, batch=100):
        self.looks += 1
        flat = images.reshape(len(images), -1).astype(np.float64)
        shares = np.full((len(images), 3), 1 / 3) if self.probabilities else None
        return Features(np.stack([flat.mean(1), flat.std(1)], 1), shares)


IMAGES = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), np.uint8)


def test_a_set_is_looked_at_once(home):
    network = Counting()
    first = reference.of_array(network, IMAGES, "noise/test")
    again = reference.of_array(network, IMAGES.copy(), "noise/test")
    assert network.looks == 1 and len(list(home.iterdir())) == 1
    assert again.n == 40
    np.testing.assert_array_equal(again.features, first.features)
    np.testing.assert_array_equal(again.probabilities, first.probabilities)
    np.testing.assert_array_equal(again.moments.scatter, first.moments.scatter)
    np.testing.assert_allclose(again.moments.covariance, np.cov(first.features.T), rtol=1e-12)


def test_moments_without_features(home):
    network = Counting(probabilities=False)
    for _ in range(2):
        kept = reference.of_array(network, IMAGES, "noise/test", keep=False)
    assert network.looks == 1 and kept.features is None and kept.probabilities is None


@pytest.mark.parametrize("change", ["pixel", "count", "name", "digest", "resize", "network", "keep", "tap"])
def test_another_set_network_or_resize_is_another_file(home, change):
    images, name, keep, network = IMAGES.copy(), "noise/test", True, Counting()
    reference.of_array(network, images, name, keep)
    if change == "pixel":
        images[7, 1, 2] ^= 1
    elif change == "count":
        images = images[:-1]
    elif change == "name":
        name = "noise/train"
    elif change == "keep":
        keep = False
    else:
        setattr(network, "name" if change == "network" else change, "other")
    reference.of_array(network, images, name, keep)
    assert network.looks == 2 and len(list(home.iterdir())) == 2


def _key(network):
    return reference.key_of(network, "noise/test", IMAGES.shape[1:], len(IMAGES), reference.content_hash(IMAGES), True)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_file_is_named_and_made_anew_on_demand(home, damage):
    network = Counting()
    whole = reference.of_array(network, IMAGES, "noise/test")
    (path,) = home.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 255
    path.write_bytes({"cut": data[:-200], "flipped": data, "empty": b"", "foreign": b"not an archive" * 9}[damage])
    with pytest.raises(UserError, match=rf"{path.name}.*damaged.*--recompute"):
        reference.of_array(network, IMAGES, "noise/test")
    mended = reference.cached(_key(network), lambda: whole, recompute=True)
    assert mended is whole
    np.testing.assert_array_equal(reference.of_array(network, IMAGES, "noise/test").features, whole.features)
    assert network.looks == 1


def test_a_file_under_a_wrong_name_is_refused(home):
    network = Counting()
    reference.of_array(network, IMAGES, "noise/test")
    (path,) = home.iterdir()
    network.digest = "cd"
    path.rename(reference.path_of(_key(network)))
    with pytest.raises(UserError, match="another set"):
        reference.of_array(network, IMAGES, "noise/test")


def test_a_stopped_write_leaves_nothing(home, monkeypatch):
    network = Counting()

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", stop)
    with pytest.raises(KeyboardInterrupt):
        reference.of_array(network, IMAGES, "noise/test")
    assert list(home.iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_no_numbers(home, caplog):
    home.parent.mkdir(parents=True)
    home.write_text("a file where the folder should be")
    found = reference.of_array(Counting(), IMAGES, "noise/test")
    assert found.n == 40 and "are not kept" in caplog.text
