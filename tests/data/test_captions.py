"""Captions of one's own images as tokens: the vocabulary beside the data, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_pipeline import write_tokenizer

from jaxgen.data import open_source
from jaxgen.data.sources.captions import main, vocabulary_of
from jaxgen.errors import UserError

CAPTIONS = np.array(["a red cat", "a dog", "the red dog"])


@pytest.fixture
def archive(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "pets.npz", train_images=images, train_captions=CAPTIONS, test_images=images[:1],
             test_captions=np.array(["a blue cat"]))  # fmt: skip
    return f"npz:{tmp_path / 'pets.npz'}"


def test_the_vocabulary_is_that_of_training_and_lies_beside_the_data(archive, capsys):
    assert main([archive, "--length=5"]) == 0
    assert "8 ids, 5 tokens" in capsys.readouterr().out
    source = open_source(f"captions:{archive}", "train", 8, 3)
    words = source.tokenizer.words
    assert set(words) == {"a", "red", "cat", "dog", "the"} and vocabulary_of(archive).exists()
    example = source[2]
    assert source.tokenizer.decode(example["tokens"]) == "the red dog" == str(example["caption"])
    held_out = open_source(f"captions:{archive}", "test", 8, 3).take([0])
    assert source.tokenizer.decode(held_out["tokens"][0]) == "a ? cat"
    taken = source.take([1, 0])
    np.testing.assert_array_equal(taken["tokens"], source.tokenizer(["a dog", "a red cat"]))
    assert taken["image"].shape == (2, 8, 8, 3) and len(source) == 3


def test_a_source_that_is_not_in_memory_has_tokens_too(archive):
    main([archive])
    source = open_source(f"captions:{archive}", "train", 8, 3)
    arrays, source.arrays = source.arrays, None
    np.testing.assert_array_equal(source.take([2, 1])["tokens"], arrays["tokens"][[2, 1]])
    np.testing.assert_array_equal(source[1]["tokens"], arrays["tokens"][1])


def test_a_folder_with_clips_tokenizer_beside_the_data_is_taken(archive, tmp_path):
    write_tokenizer(tmp_path / "pets.npz.tokenizer")
    source = open_source(f"captions:{archive}", "train", 8, 3)
    tokens = source.tokenizer.tokenize(list(CAPTIONS))
    np.testing.assert_array_equal(source.take([0, 1, 2])["tokens"], tokens)
    np.testing.assert_array_equal(source[1]["tokens"], tokens[1])
    assert tokens.shape == (3, 77) and len(np.unique(tokens, axis=0)) == 3


def test_mistakes_are_named(archive, tmp_path, capsys):
    with pytest.raises(UserError, match=r"no vocabulary.*python -m jaxgen\.data\.sources\.captions"):
        open_source(f"captions:{archive}", "train", 8, 3)
    with pytest.raises(UserError, match="folder:<path>, pairs:<path> or npz:<path>"):
        open_source("captions:shapes", "train", 8, 3)
    np.savez(tmp_path / "bare.npz", train_images=np.zeros((2, 8, 8, 3), np.uint8))
    assert main([f"npz:{tmp_path / 'bare.npz'}"]) == 2
    assert "no captions" in capsys.readouterr().err


def test_what_the_tokens_do_not_keep_is_told(tmp_path):
    images = np.zeros((4, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "pets.npz", train_images=images, train_captions=np.array(["a b c d e", "a zebra", "", "b c"]))
    name = f"npz:{tmp_path / 'pets.npz'}"
    vocabulary_of(name).write_text('{"words": ["a", "b", "c", "d", "e"], "length": 4, "strict": false}')
    source = open_source(f"captions:{name}", "train", 8, 3)
    assert "1 of 4 captions are empty" in source.notes
    assert source.notes[-1] == "1 of 4 captions are cut; 1 words are not in the vocabulary: 'zebra'"
    assert source.summary().endswith(source.notes[-1])


def test_a_folder_that_is_read_as_classes_has_its_vocabulary_beside_it(tmp_path):
    assert vocabulary_of(f"folder:{tmp_path}/pets:classes") == vocabulary_of(f"folder:{tmp_path}/pets")


@pytest.mark.parametrize("captions", [np.arange(4), np.array([["a", "b"]] * 4)])
def test_captions_of_an_archive_are_one_text_each(tmp_path, captions):
    np.savez(tmp_path / "pets.npz", images=np.zeros((4, 8, 8, 3), np.uint8), captions=captions)
    with pytest.raises(UserError, match="one text for each image"):
        open_source(f"npz:{tmp_path / 'pets.npz'}", "all", 8, 3)
