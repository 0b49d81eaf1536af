"""Captioned shapes: what is said agrees with what is drawn, and what is held out is never trained on."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.data.sources import caption_shapes, tokenizer_of
from jaxgen.data.sources.caption_shapes import COMBINATIONS, HELD_OUT, LENGTH, TOKENIZER
from jaxgen.errors import UserError
from jaxgen.metrics.analysis.shape_attributes import agreement, read_attributes

PHRASED = "caption_shapes:phrases"


def taken(split, count=200, resolution=32):
    return open_source("caption_shapes", split, resolution, 3, 8).take(range(count))


def test_layout():
    example = open_source("caption_shapes", "test", (16, 24), 3)[0]
    layout = {key: (value.shape, value.dtype) for key, value in example.items() if key != "caption"}
    assert layout == {
        "image": ((16, 24, 3), np.uint8), "label": ((), np.int32), "attributes": ((3,), np.int32),
        "tokens": ((LENGTH,), np.int32),
    }  # fmt: skip
    assert example["label"] == example["attributes"][0]
    assert [len(open_source("caption_shapes", split, 8, 3)) for split in ("train", "test", "unseen")] == [
        60_000, 1_000, 1_000,
    ]  # fmt: skip


def test_a_tenth_is_held_out_and_every_pair_is_trained_on():
    assert len(COMBINATIONS) == 576 and HELD_OUT.sum() == 58
    trained = COMBINATIONS[~HELD_OUT]
    for first, second, count in ((0, 1, 64), (0, 2, 72), (1, 2, 72)):
        assert len(np.unique(trained[:, [first, second]], axis=0)) == count


def test_no_held_out_combination_is_in_training_or_test_and_only_those_are_unseen():
    held = {tuple(row) for row in COMBINATIONS[HELD_OUT].tolist()}
    for split in ("train", "test", "unseen"):
        found = {tuple(row) for row in taken(split, 1000, 4)["attributes"].tolist()}
        assert (found <= held) if split == "unseen" else not (found & held)
    assert len(found) > 50  # of the 58


@pytest.mark.slow
def test_images_show_what_their_captions_say():
    example = taken("train")
    np.testing.assert_array_equal(read_attributes(example["image"]), example["attributes"])
    everything = agreement(example["image"], example["attributes"])
    assert (everything.shape, everything.colour, everything.position, everything.all) == (1, 1, 1, 1)
    for words, attributes in zip(example["caption"], example["attributes"], strict=True):
        for key, value in zip(caption_shapes.ATTRIBUTES, attributes, strict=True):
            assert f" {caption_shapes.NAMES[key][value]} " in f" {words} "
    shuffled = agreement(example["image"], np.roll(example["attributes"], 1, axis=0))
    assert shuffled.shape < 0.3 and shuffled.colour < 0.3 and shuffled.position < 0.3 and shuffled.all < 0.05


def test_reading_withstands_a_little_noise_and_nothing_is_nothing():
    example = taken("test", 60, 64)
    noise = np.random.default_rng(0).normal(0, 10, example["image"].shape)
    noisy = np.clip(example["image"] + noise, 0, 255).astype(np.uint8)
    assert agreement(noisy, example["attributes"]).all > 0.95
    assert read_attributes(np.zeros((1, 32, 32, 3), np.uint8)).tolist() == [[-1, -1, -1]]
    with pytest.raises(UserError, match="uint8 images"):
        read_attributes(np.zeros((1, 32, 32, 3)))


def test_tokens_are_the_captions_words():
    example = taken("train", 50, 4)
    np.testing.assert_array_equal(example["tokens"], caption_shapes.tokens_of(list(example["caption"])))
    assert [TOKENIZER.decode(ids) for ids in example["tokens"]] == list(example["caption"])
    assert caption_shapes.tokens_of([""]).tolist() == [[1] + [0] * (LENGTH - 1)]
    longest = caption_shapes.tokens_of(["an orange diamond at the bottom right"])[0]
    assert longest[-1] == 1  # its end fits, and nothing is cut
    with pytest.raises(UserError, match="'magenta'"):
        caption_shapes.tokens_of(["a magenta circle at the top"])


def test_phrases_say_what_is_drawn_in_several_ways():
    plain, said = (open_source(source, "train", 16, 3).take(range(400)) for source in ("caption_shapes", PHRASED))
    np.testing.assert_array_equal(plain["image"], said["image"])
    np.testing.assert_array_equal(plain["attributes"], said["attributes"])
    read = np.array([caption_shapes.read_caption(text) for text in said["caption"]])
    np.testing.assert_array_equal(read, said["attributes"])
    assert len(set(said["caption"])) > 350 and (said["caption"] != plain["caption"]).mean() > 0.9
    for text, attributes in zip(said["caption"], said["attributes"], strict=True):
        assert text in caption_shapes.sentences(attributes)


def test_every_sentence_means_one_combination_and_keeps_all_its_tokens():
    tokenizer, seen = caption_shapes.PHRASE_TOKENIZER, set()
    for attributes in COMBINATIONS[::5]:
        texts = caption_shapes.sentences(attributes)
        assert len(set(texts)) == 32 and not seen & set(texts)
        seen.update(texts)
        assert {tuple(caption_shapes.read_caption(text)) for text in texts} == {tuple(attributes)}
        assert not any(tokenizer.lost(texts)) and [tokenizer.decode(ids) for ids in tokenizer(texts)] == texts
    assert (caption_shapes.PHRASED_LENGTH, tokenizer_of(PHRASED)) == (16, tokenizer)
    assert tokenizer_of("caption_shapes") == TOKENIZER


def test_reading_a_caption_leaves_out_what_it_does_not_say_once():
    assert caption_shapes.read_caption("a red circle").tolist() == [0, 0, -1]
    assert caption_shapes.read_caption("a red and blue disc at the top right").tolist() == [0, -1, 2]
    assert caption_shapes.read_caption("").tolist() == [-1, -1, -1]


def test_only_rgb_and_known_splits():
    with pytest.raises(UserError, match="'caption_shapes:phrases'"):
        open_source("caption_shapes:frases", "train", 8, 3)
    with pytest.raises(UserError, match="RGB"):
        open_source("caption_shapes", "train", 8, 1)
    with pytest.raises(UserError, match="val"):
        open_source("caption_shapes", "val", 8, 3)
