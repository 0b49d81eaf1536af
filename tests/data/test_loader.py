"""The loader: epochs, resuming, sharing among processes, naming."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from jaxgen.data import Arrays, Loader, Request, Source, batches, open_source
from jaxgen.errors import UserError


def numbered(count, name="numbers", **more):
    """A source in memory whose labels are its indices."""
    labels = np.arange(count, dtype=np.int32)
    images = np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (count, 2, 2, 1))
    return Arrays({"image": images, "label": labels, **more}, name, "train")


class Streamed(Source):
    """The same examples, one by one."""

    def __init__(self, count):
        super().__init__(Request("numbers", "", "train", (2, 2), 1))
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return {"image": np.full((2, 2, 1), index, np.uint8), "label": np.int32(index)}


def labels_of(loader, steps, key="label"):
    return np.concatenate([batch[key] for batch in itertools.islice(loader, steps)])


@pytest.mark.parametrize("make", [numbered, Streamed])
def test_each_epoch_shows_every_example_once_across_batch_boundaries(make):
    row = labels_of(Loader({"": make(10)}, 4, seed=0), 10)
    epochs = row.reshape(4, 10)
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_batch_may_span_several_epochs():
    row = labels_of(Loader({"": numbered(3)}, 8, seed=1), 3).reshape(8, 3)
    assert all(sorted(epoch) == [0, 1, 2] for epoch in row)


def test_entries_of_one_example_stay_together():
    batch = next(Loader({"": numbered(50)}, 20, seed=3))
    assert (batch["image"][:, 0, 0, 0] == batch["label"]).all()


def test_order_depends_on_the_seed_and_not_on_where_the_examples_lie():
    held = labels_of(Loader({"": numbered(30)}, 6, seed=5), 12)
    assert (held == labels_of(Loader({"": Streamed(30)}, 6, seed=5), 12)).all()
    assert (held != labels_of(Loader({"": numbered(30)}, 6, seed=6), 12)).any()


@pytest.mark.parametrize("make", [numbered, Streamed])
def test_resuming_goes_on_with_the_next_batch_whatever_was_read_ahead(make):
    loader = Loader({"": make(10)}, 4, seed=2)
    labels_of(loader, 7)
    state = json.loads(json.dumps(loader.get_state()))
    expected = labels_of(loader, 9)

    fresh = Loader({"": make(10)}, 4, seed=2)
    fresh.set_state(state)
    assert (labels_of(fresh, 9) == expected).all()
    # Rewinding a loader that has read further is the same.
    loader.set_state(state)
    assert loader.get_state() == state
    assert (labels_of(loader, 9) == expected).all()


def test_closing_loses_nothing():
    loader = Loader({"": numbered(10)}, 4, seed=2)
    expected = labels_of(Loader({"": numbered(10)}, 4, seed=2), 4)
    got = []
    for _ in range(4):
        got.append(next(loader)["label"])
        loader.close()
    assert (np.concatenate(got) == expected).all()


@pytest.mark.parametrize("make", [numbered, Streamed])
def test_shares_of_all_processes_make_the_batch_of_one(make):
    whole = Loader({"": make(10)}, 6, seed=4)
    parts = [Loader({"": make(10)}, 6, seed=4, process_index=i, process_count=3) for i in range(3)]
    for _ in range(8):
        shares = [next(part) for part in parts]
        assert all(len(share["label"]) == 2 for share in shares)
        assert (np.concatenate([share["label"] for share in shares]) == next(whole)["label"]).all()
    assert parts[0].get_state() == whole.get_state()


def test_names_prefix_and_each_source_is_shuffled_on_its_own():
    loader = Loader({"": numbered(40), "other": numbered(40)}, 40, seed=0)
    batch = next(loader)
    assert set(batch) == {"image", "label", "other_image", "other_label"}
    assert (batch["label"] != batch["other_label"]).any()
    assert sorted(batch["other_label"]) == list(range(40))


def test_strings_reach_the_transform_and_no_further():
    words = np.array(["even", "odd"])[np.arange(10) % 2]
    loader = Loader(
        {"": numbered(10, caption=words)},
        5,
        seed=0,
        transform=lambda batch: {**batch, "tokens": (batch["caption"] == "odd").astype(np.int32)},
    )
    batch = next(loader)
    assert "caption" not in batch
    assert (batch["tokens"] == batch["label"] % 2).all()


@pytest.mark.slow
def test_workers_give_the_same_batches():
    source = open_source("shapes", "train", 8, 3)
    alone = Loader({"": source}, 4, seed=0)
    loader = Loader({"": source}, 4, seed=0, workers=1)
    try:
        labels_of(loader, 1)
        state = loader.get_state()
        expected = labels_of(alone, 3)[4:]
        assert (labels_of(loader, 2) == expected).all()
        loader.set_state(state)
        assert (labels_of(loader, 2) == expected).all()
    finally:
        loader.close()


@pytest.mark.parametrize(
    "change, word",
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 5, "process_count": 2}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"sources": {}}, "source"),
        ({"process_index": 1}, "Process"),
    ],
)
def test_refusals(change, word):
    with pytest.raises(UserError, match=word):
        Loader(**{"sources": {"": numbered(4)}, "batch_size": 4, "seed": 0, **change})


@pytest.mark.parametrize("seed, count, word", [(1, 10, "seed"), (0, 11, "sources")])
def test_a_state_of_other_data_is_refused(seed, count, word):
    state = Loader({"": numbered(10)}, 2, seed=0).get_state()
    with pytest.raises(UserError, match=word):
        Loader({"": numbered(count)}, 2, seed=seed).set_state(state)


def test_sequential_batches_are_in_order_finite_and_keep_strings():
    source = numbered(10, caption=np.array([f"number {i}" for i in range(10)]))
    parts = list(batches(source, 4))
    assert [len(part["label"]) for part in parts] == [4, 4, 2]
    assert np.concatenate([part["label"] for part in parts]).tolist() == list(range(10))
    assert parts[2]["caption"].tolist() == ["number 8", "number 9"]
    assert [len(part["label"]) for part in batches(source, 4, limit=6)] == [4, 2]
    assert len(list(batches(source, 4, limit=99))) == 3
