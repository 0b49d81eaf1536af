"""Entries under other names, the same in training, at sampling and in evaluation."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from tiny_methods import Plain, tiny_config

from jaxgen.config import section
from jaxgen.config.checks import check
from jaxgen.data import Loader, open_source
from jaxgen.data.sources import captions
from jaxgen.errors import UserError
from jaxgen.runs.setup import extra_held_out, open_split, training_sources
from jaxgen.sampling.generator import Generator

RNG = np.random.default_rng(0)


@pytest.fixture
def stored(tmp_path):
    """An archive of two pictures, two labels and two texts for each of twelve examples."""
    arrays = {name: RNG.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8) for name in ("images", "style")}
    numbers = {"labels": np.arange(12) % 3, "kind": np.arange(12) % 5, "points": RNG.normal(size=(12, 2))}
    texts = {"prompt": np.array([f"a {i}" for i in range(12)])}
    np.savez(tmp_path / "pairs.npz", **arrays, **numbers, **texts)
    return f"npz:{tmp_path / 'pairs.npz'}", {**arrays, **numbers, **texts}


def opened(name, num_classes=0, **rename):
    return open_source(name, "all", 8, 3, num_classes, rename=rename)


def test_two_entries_change_places(stored):
    name, arrays = stored
    source = opened(name, image="style", condition="image")
    assert set(source[0]) == {"image", "condition", "label", "kind", "points", "prompt"}
    np.testing.assert_array_equal(source.take([3, 1])["image"], arrays["style"][[3, 1]])
    np.testing.assert_array_equal(source[7]["condition"], arrays["images"][7])
    assert "renamed: condition is its image, image is its style" in source.summary()


def test_renaming_back_gives_the_source_again(stored):
    name, _ = stored
    plain, there = opened(name), opened(name, image="style", style="image")
    back = opened(name, image="image", style="style")
    for key, values in plain.arrays.items():
        np.testing.assert_array_equal(back.arrays[key], values)
    np.testing.assert_array_equal(there.arrays["style"], plain.arrays["image"])


def test_an_entry_that_loses_its_name_is_told(stored):
    name, arrays = stored
    source = opened(name, image="style")
    assert "its own image is left out" in source.summary() and set(source[0]) & {"style", "condition"} == set()
    np.testing.assert_array_equal(source.arrays["image"], arrays["style"])


def test_labels_of_another_entry_are_checked_as_labels(stored):
    name, arrays = stored
    source = opened(name, num_classes=5, label="kind")
    assert source.num_classes == 5 and (source.arrays["label"] == arrays["kind"]).all() and source.class_names == ()
    with pytest.raises(UserError, match=r"has label 3, outside \[0, 3\)"):
        opened(name, num_classes=3, label="kind")
    with pytest.raises(UserError, match="has no labels, but config.data.num_classes is 3"):
        opened(name, num_classes=3, species="label")
    assert opened(name, num_classes=3, condition="style").num_classes == 3


def test_sources_that_draw_when_they_are_asked_are_renamed_too():
    plain = open_source("shapes", "val", 8, 3)
    source = open_source("shapes", "val", 8, 3, rename={"image": "style", "condition": "image"})
    assert source.arrays is None and len(source) == len(plain) and source.class_names == plain.class_names
    batch = next(Loader({"": pickle.loads(pickle.dumps(source))}, 4, seed=0))
    wanted = next(Loader({"": plain}, 4, seed=0))
    np.testing.assert_array_equal(batch["image"], wanted["style"])
    np.testing.assert_array_equal(batch["condition"], wanted["image"])


def test_a_text_of_another_name_gives_the_tokens(stored, tmp_path):
    name, _ = stored
    captions.main([name, "--split=all", "--length=4", "--caption=prompt"])
    source = opened(f"captions:{name}", caption="prompt")
    assert len(np.unique(source.arrays["tokens"], axis=0)) == 12
    words = ["<empty>", "<end>", "<unknown>", "a", "7"]
    from jaxgen.data.word_tokenizer import WordTokenizer

    (tmp_path / "pairs.npz.vocabulary.json").write_text(WordTokenizer(("a", "7"), 4).to_json())
    source = opened(f"captions:{name}", caption="prompt", condition="style")
    assert source[7]["tokens"].tolist()[:2] == [words.index("a"), words.index("7")] and "condition" in source[7]
    assert source.summary().count("renamed") == 1
    with pytest.raises(UserError, match="have no captions"):
        opened(f"captions:{name}")


@pytest.mark.parametrize(
    ("rename", "told"),
    [
        ({"condition": "stile"}, r"rename\.condition='stile': .* have no such entry; did you mean 'style'"),
        ({"condition": "style", "hint": "style"}, r"rename\.condition and config\.data\.rename\.hint are both 'style'"),
        ({"image": "kind"}, r"images of 'npz:.*' are int32 \(\), where .* ask for uint8 \(8, 8, 3\)"),
        ({"label": "points"}, r"rename\.label='points' is float32 of shape \[2\], not one whole number"),
        ({"caption": "kind"}, r"rename\.caption='kind' is int32 of shape \[\], not one text"),
        ({"condition": "image"}, "has no 'image', only style, .*; name the entry"),
    ],
)
def test_names_that_do_not_fit(stored, rename, told):
    with pytest.raises(UserError, match=told) as caught:
        opened(stored[0], **rename)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("style", "config.data.rename must be a section"),
        (section(condition=3), "config.data.rename.condition must be the old name of an entry"),
        (section(condition=section(name="style")), "config.data.rename.condition must be the old name"),
    ],
)
def test_a_config_says_names(names, told):
    config = tiny_config("Plain")
    config.data.rename = names
    with pytest.raises(UserError, match=told):
        check(config)


def test_a_run_reads_the_same_names_everywhere(stored):
    name, arrays = stored
    config = tiny_config("Plain")
    config.data.update(source=name, split="all", eval_split="all", channels=3)
    config.data.rename = section(image="style", condition="image")
    check(config)
    for source in (
        training_sources(config)[""],
        open_split(config, "all"),
        Generator(Plain(), config).source("all"),
    ):
        np.testing.assert_array_equal(source.take([5])["condition"], arrays["images"][[5]])


def test_a_further_source_has_names_and_channels_of_its_own(stored, tmp_path):
    name, arrays = stored
    np.savez(tmp_path / "lines.npz", images=RNG.integers(0, 256, (5, 8, 8), dtype=np.uint8))
    config = tiny_config("Plain")
    config.data.update(source=name, split="all", channels=3)
    config.data.rename = section(condition="style")
    config.data.extra = section(
        lines=section(source=f"npz:{tmp_path / 'lines.npz'}", split="all", eval_split="all", channels=1),
        other=section(source=name, split="all", rename=section(image="style")),
    )
    check(config)
    sources = training_sources(config)
    assert sources["lines"][0]["image"].shape == (8, 8, 1) and set(sources["lines"][0]) == {"image"}
    np.testing.assert_array_equal(sources["other"].arrays["image"], arrays["style"])
    assert "condition" not in sources["other"][0] and extra_held_out(config, "lines")[0]["image"].shape == (8, 8, 1)
    assert next(Loader(sources, 4, seed=0))["lines_image"].shape == (4, 8, 8, 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"channels": 3}, r"config\.data\.extra\.b\.channels is 3; set config\.data\.extra\.b\.channels=1"),
        ({"channels": 2}, r"config\.data\.extra\.b\.channels is 2"),
        ({"channels": "grey"}, r"config\.data\.extra\.b\.channels must be of type int"),
        ({"rename": section(image="lines")}, r"config\.data\.extra\.b\.rename\.image='lines'"),
        ({"rename": "lines"}, r"config\.data\.extra\.b\.rename must be a section"),
        ({"chanels": 1}, r"config\.data\.extra\.b\.chanels does not exist; did you mean .*channels"),
        ({"source": "nowhere"}, r"config\.data\.extra\.b\.source='nowhere'"),
    ],
)
def test_wrong_keys_of_a_further_source_are_named(tmp_path, change, told):
    np.savez(tmp_path / "lines.npz", images=RNG.integers(0, 256, (5, 8, 8), dtype=np.uint8))
    config = tiny_config("Plain")
    config.data.extra = section(
        b=section(**{"source": f"npz:{tmp_path / 'lines.npz'}", "split": "all", "channels": 1, **change})
    )
    with pytest.raises(UserError, match=told):
        check(config)
        training_sources(config)
