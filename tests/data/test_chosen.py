"""`config.data.examples`: which examples are learned from, and that held-out ones are all there."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.config import check, defaults, section
from jaxgen.data import open_source
from jaxgen.data.chosen import Chosen
from jaxgen.errors import UserError
from jaxgen.runs.setup import open_split


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """An archive whose image i, of 30, is full of the number i, and whose mask is too."""
    path = tmp_path_factory.mktemp("chosen") / "data.npz"
    images = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None, None], (30, 2, 2))
    np.savez(path, train_images=images, train_masks=images, train_labels=np.arange(30) % 3, test_images=images[:9])
    return f"npz:{path}"


def numbers(source):
    return source.take(range(len(source)))["image"][:, 0, 0, 0].tolist()


def chosen(stored, count, seed=0):
    return Chosen(open_source(stored, "train", 2, 1), count, seed)


def test_fewer_are_the_first_of_more_and_another_seed_chooses_others(stored):
    ten = numbers(chosen(stored, 10))
    assert len({*ten}) == 10 and ten == numbers(chosen(stored, 20))[:10] != sorted(ten)
    assert {*numbers(chosen(stored, 10, seed=1))} != {*ten}
    assert sorted(numbers(chosen(stored, 30))) == [*range(30)]


def test_all_ways_to_read_an_example_give_the_same(stored):
    source = chosen(stored, 7)
    assert source.num_classes == 3 and source.name == stored
    for entry, values in source.take(range(7)).items():
        np.testing.assert_array_equal(values, source.arrays[entry])
        np.testing.assert_array_equal(values, np.stack([source[i][entry] for i in range(7)]))
    assert (source.arrays["mask"][:, 0, 0] == source.arrays["image"][:, 0, 0, 0]).all()
    with pytest.raises(IndexError):
        source[7]


def config_of(stored, **data):
    config = defaults()
    config.method = section(name="segmentation", features="pixels", classes=2)
    config.data.update(source=stored, resolution=2, channels=1, **data)
    config.train.update(batch_size=2, total_images=2)
    return config


def test_the_held_out_split_is_whole(stored):
    config = config_of(stored, examples=5)
    assert len(open_split(config, "train")) == 5 and len(open_split(config, "test")) == 9
    config.data.examples = 0
    assert len(open_split(config, "train")) == 30


def test_more_than_there_are_and_less_than_none_are_refused(stored):
    with pytest.raises(UserError, match="config.data.examples=31, and split 'train' of .* has 30: ask for fewer"):
        open_split(config_of(stored, examples=31), "train")
    with pytest.raises(UserError, match=r"config.data.examples.*0 \(all\) or more"):
        check(config_of(stored, examples=-1))
