"""`sets:`: other images of the class of each image, with classes that are held out."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from jaxgen.config import defaults, section
from jaxgen.config.checks import check
from jaxgen.data import Loader, open_source
from jaxgen.errors import UserError
from jaxgen.runs.setup import open_split

RNG = np.random.default_rng(0)
COUNT, CLASSES = 60, 6


@pytest.fixture
def stored(tmp_path):
    """An archive whose image i is full of the number i, with six classes in three families."""
    images = np.broadcast_to(np.arange(COUNT, dtype=np.uint8)[:, None, None], (COUNT, 2, 2))
    kind = RNG.permutation(np.arange(COUNT) % CLASSES)
    np.savez(tmp_path / "data.npz", images=images, kind=kind, family=kind // 2, shift=np.zeros((COUNT, 3)))
    return f"npz:{tmp_path / 'data.npz'}", kind


def opened(source, split="all", **options):
    return open_source(f"sets:{source}", split, 2, 1, rename={"label": "kind"}, options=options)


def numbers(sets):
    """The numbers of the examples that sets are made of."""
    return sets[..., 0, 0, 0].astype(int)


def test_a_set_is_of_other_images_of_the_class_in_every_epoch(stored):
    name, kind = stored
    loader = Loader({"": opened(name, size=4)}, 30, seed=3)
    seen = np.zeros((COUNT, COUNT), int)
    for _ in range(100):
        batch = next(loader)
        own, others = batch["image"][:, 0, 0, 0].astype(int), numbers(batch["set"])
        assert (others != own[:, None]).all()  # never in its own set
        assert (kind[others] == kind[own][:, None]).all() and (batch["label"] == kind[own]).all()
        assert all(len({*row}) == 4 for row in others)
        np.add.at(seen, (own[:, None], others), 1)
    loader.close()
    # 50 epochs of 4 of 9 others: each of the others is met about 22 times
    same = (kind[:, None] == kind) & ~np.eye(COUNT, dtype=bool)
    assert (seen[~same] == 0).all() and seen[same].min() > 5 and seen[same].max() < 45


def test_sets_are_those_of_seed_epoch_and_index(stored):
    name, _ = stored
    source = opened(name, size=3)
    whole = Loader({"": source}, 20, seed=0)
    batches = [next(whole) for _ in range(9)]
    whole.close()
    first = Loader({"": source}, 20, seed=0)
    for _ in range(4):
        next(first)
    resumed = Loader({"": pickle.loads(pickle.dumps(source))}, 20, seed=0)
    resumed.set_state(first.get_state())
    shares = [Loader({"": source}, 20, 0, process_index=i, process_count=2) for i in range(2)]
    for i, batch in enumerate(batches):
        parts = [next(share)["set"] for share in shares]
        np.testing.assert_array_equal(np.concatenate(parts), batch["set"])
        if i >= 4:
            np.testing.assert_array_equal(next(resumed)["set"], batch["set"])
    epochs = [{int(b["image"][j, 0, 0, 0]): numbers(b["set"])[j] for b in batches[i : i + 3] for j in range(20)}
              for i in (0, 3, 6)]  # fmt: skip
    changed = [any((epochs[0][n] != other[n]).any() for n in range(COUNT)) for other in epochs[1:]]
    assert all(changed)
    for loader in (first, resumed, *shares):
        loader.close()
    np.testing.assert_array_equal(source.take([5, 7])["set"], opened(name, size=3).take([5, 7])["set"])
    np.testing.assert_array_equal(source[7]["set"], source.take([7])["set"][0])


def test_held_out_classes_are_in_their_own_split_alone(stored):
    name, kind = stored
    seen, unseen = (opened(name, split, size=2, by="family", unseen=(1,)) for split in ("all", "all/unseen"))
    assert {*seen.column("label")} == {0, 1, 4, 5} and {*unseen.column("label")} == {2, 3}
    assert len(seen) + len(unseen) == COUNT
    for source in (seen, unseen):
        for epoch in range(5):
            drawn = source.draw(range(len(source)), [(0, 0, epoch)] * len(source))
            assert {*kind[numbers(drawn["set"])].reshape(-1)} == {*source.column("label")}
    assert "2 classes are held out: 2, 3; these are the images of the other 4" in seen.summary()
    assert "these are the images of those" in unseen.summary()


def test_classes_are_held_out_by_name_or_number():
    by_name = open_source("sets:digits", "test", 8, 1, options={"unseen": ("8", "9")})
    by_number = open_source("sets:digits", "test", 8, 1, options={"unseen": (8, 9)})
    assert {*by_name.column("label")} == {*range(8)} and len(by_name) == 400
    np.testing.assert_array_equal(by_name.take(range(9))["set"], by_number.take(range(9))["set"])


def test_class_folders_that_do_not_fit_in_memory(tmp_path, monkeypatch):
    for i in range(12):
        path = tmp_path / ("cat", "dog", "owl")[i % 3] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((2, 2), i, np.uint8)).save(path)
    options = {"size": 2, "unseen": ("dog",)}
    held = open_source(f"sets:folder:{tmp_path}:classes", "all", 2, 1, options=options)
    monkeypatch.setattr("jaxgen.data.sources.folder.MEMORY_LIMIT", 0)
    streamed = open_source(f"sets:folder:{tmp_path}:classes", "all", 2, 1, options=options)
    assert streamed._inner.arrays is None
    for key, values in held.take(range(len(held))).items():
        np.testing.assert_array_equal(streamed.take(range(len(held)))[key], values)
    assert "1 classes are held out" not in held.summary() and "1 class is held out: dog" in held.summary()


@pytest.mark.parametrize(
    "split, options, said",
    [
        (
            "all",
            {"size": 10},
            r"class \d of .* has 10 images, and a set of 10 other images needs 11 \(and 5 more classes",
        ),
        ("all", {"size": 0}, "a set has at least 1 image"),
        ("all", {"sizes": 2}, r"config\.data\.options\.sizes: .* has no such option; did you mean 'size'"),
        ("all", {"size": 2.5}, r"config\.data\.options\.size must be of type int"),
        ("all", {"unseen": (7,)}, r"config\.data\.options\.unseen: 7 is none of the values of 'label'"),
        ("all", {"unseen": (0,), "by": "famly"}, r"options\.by='famly', and the examples of .* have family, image"),
        ("all", {"unseen": (0,), "by": "shift"}, r"options\.by='shift' has the shape \(3,\) for each example"),
        ("all/unseen", {}, r"has the classes that are held out, and config\.data\.options\.unseen names none"),
        ("all", {"unseen": (0, 1, 2), "by": "family"}, "has only images of the held-out classes"),
        ("train/unseens", {"unseen": (0,)}, "has no split 'train/unseens'"),
    ],
)
def test_what_makes_no_sets_is_refused_in_a_sentence(stored, split, options, said):
    with pytest.raises(UserError, match=said):
        opened(stored[0], split, **options)


def test_a_source_without_labels_and_one_without_options_are_named(stored):
    with pytest.raises(UserError, match="needs the class of each image.*rename.label"):
        open_source(f"sets:{stored[0]}", "all", 2, 1)
    with pytest.raises(UserError, match="'digits' takes no options"):
        open_source("digits", "test", 8, 1, options={"size": 3})
    with pytest.raises(UserError, match="lacks its argument; write 'sets:<labelled source>'"):
        open_source("sets", "test", 8, 1)


def test_options_are_keys_of_a_config(stored):
    config = defaults()
    config.method.name = "ddpm"
    config.data.update(source="sets:digits", resolution=8, channels=1)
    config.data.options = section(size=3, unseen=("3",))
    config.data.extra.other = section(source="sets:digits", split="test", options=section(size=7))
    config.train.total_images = 8
    check(config)
    assert open_split(config, "test")[0]["set"].shape == (3, 8, 8, 1)
    assert open_split(config, "test", "other")[0]["set"].shape == (7, 8, 8, 1)
