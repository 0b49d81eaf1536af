"""T5's tokenizer on a small unigram model that is trained here; against transformers in tests/parity."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_t5 import CHARMAP, charsmap, field, pieces, spiece, write_spiece

from jaxgen.data.clip_tokenizer import ClipTokenizer
from jaxgen.data.subwords.t5_tokenizer import T5Tokenizer, open_tokenizer
from jaxgen.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_spiece(tmp_path_factory.mktemp("t5"), normalizer=field(2, charsmap(CHARMAP)))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return T5Tokenizer.from_folder(folder, length=40)


def texts_of(tokenizer, ids):
    """The pieces of ids, joined, with spaces."""
    names = {number: name for name, number in tokenizer._tokenizer.get_vocab().items()}
    return ["".join(names[int(i)] for i in row if i > 1).replace("▁", " ").strip() for row in ids]


def test_texts_become_pieces_then_the_end_then_padding(tokenizer):
    texts = ["a red circle", "  a  crimson\tdisc ", "", "an orange Heart"]
    ids = tokenizer(texts)
    assert ids.shape == (4, 40) and ids.dtype == np.int32
    assert texts_of(tokenizer, ids) == ["a red circle", "a crimson disc", "", "an orange Heart"]
    assert ids[2].tolist() == [1] + [0] * 39
    for row in ids:
        end = row.tolist().index(1)
        assert (row[:end] > 2).all() and (row[end + 1 :] == 0).all()
    assert tokenizer.vocabulary == len(pieces()) + 100  # sentinels stand behind the pieces


def test_the_most_likely_pieces_are_taken(tokenizer):
    scores = dict(pieces())
    ways = {"▁a": [("▁a",), ("▁", "a")], "▁the": [("▁the",), ("▁", "t", "h", "e")]}
    for text, known in ways.items():
        known = [way for way in known if all(piece in scores for piece in way)]
        best = max(known, key=lambda way: sum(scores[piece] for piece in way))
        names = {number: name for name, number in tokenizer._tokenizer.get_vocab().items()}
        assert tuple(names[i] for i in tokenizer.ids(text.removeprefix("▁"))) == best


def test_characters_are_replaced_as_the_file_says(tokenizer):
    np.testing.assert_array_equal(tokenizer(["\ufb01 \uff21 cafe\u0301"]), tokenizer(["fi A caf\u00e9"]))


def test_what_is_lost_is_told(tokenizer):
    whole, cut, strange = tokenizer.lost(["a red circle", "a star " * 60, "a 木 circle"])
    assert not whole
    assert cut.cut > 0 and cut.room == 39 and cut.text.endswith("star ")
    assert strange.unknown == ("木",) and not strange.all_unknown
    with pytest.raises(UserError, match="does not know '木'"):
        tokenizer.ids("木")
    row = tokenizer(["a star " * 60])[0]
    assert row[-1] == 1 and (row[:-1] > 2).all()


def test_new_words_are_found_whole(tokenizer):
    more = tokenizer.with_words({"<cat-toy>": (150, 151)})
    np.testing.assert_array_equal(more(["a red circle"]), tokenizer(["a red circle"]))
    row = more(["a red<cat-toy> circle"])[0].tolist()
    assert row[row.index(150) + 1] == 151
    assert row[: row.index(150)] == tokenizer.ids("a red")
    for known in ("the", "<extra_id_0>", "</s>"):
        with pytest.raises(UserError, match="already"):
            tokenizer.with_words({known: (1,)})


def test_equal_files_make_equal_tokenizers(folder, tmp_path, tokenizer):
    same = T5Tokenizer.from_folder(write_spiece(tmp_path / "a", normalizer=field(2, charsmap(CHARMAP))), length=40)
    other = T5Tokenizer.from_folder(write_spiece(tmp_path / "b"), length=40)
    assert same == tokenizer and hash(same) == hash(tokenizer)
    assert other != tokenizer and T5Tokenizer.from_folder(folder, length=39) != tokenizer


def test_both_forms_of_the_files_give_the_same_ids(tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer._tokenizer.to_str())
    read = T5Tokenizer.from_folder(tmp_path, length=40)
    texts = ["a red  circle ", "ﬁ", "there</s> is 木 <extra_id_3>x", ""]
    np.testing.assert_array_equal(read(texts), tokenizer(texts))
    assert isinstance(open_tokenizer(tmp_path), T5Tokenizer) and open_tokenizer(tmp_path).length == 128
    assert open_tokenizer(tmp_path, 20).length == 20


def test_sentinels_are_as_many_as_the_settings_say(tmp_path):
    write_spiece(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"extra_ids": 3}))
    tokenizer = T5Tokenizer.from_folder(tmp_path)
    assert tokenizer.ids("<extra_id_0>")[-1] == len(pieces()) + 2 == tokenizer.vocabulary - 1
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"extra_ids": "many"}))
    with pytest.raises(UserError, match="'many'"):
        T5Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (spiece()[:-40], "damaged|unknown|dummy"),
        (b"\xff" * 50, "damaged"),
        (b"", "0 unknown pieces"),
        (spiece(trainer=field(3, 2)), "another model_type than unigram"),
        (spiece(trainer=field(24, 1)), "treat_whitespace_as_suffix"),
        (spiece(normalizer=field(3, 0)), "no add_dummy_prefix"),
        (spiece(normalizer=field(4, 0)), "no remove_extra_whitespaces"),
        (spiece(kinds={"▁a": 5}), "unused pieces"),
        (spiece(kinds={"▁a": 2}), "2 unknown pieces"),
        (spiece(normalizer=field(2, b"\xff\xff\xff\xff12")), "damaged"),
    ],
)
def test_a_file_that_is_no_tokenizer_of_t5_is_refused_by_name(tmp_path, content, says):
    (tmp_path / "spiece.model").write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        T5Tokenizer.from_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_of_something_else_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="neither tokenizer.json nor spiece.model"):
        T5Tokenizer.from_folder(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        open_tokenizer(tmp_path / "nothing")
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}}))
    with pytest.raises(UserError, match="'BPE'"):
        T5Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram", "unk_id": 0}}))
    with pytest.raises(UserError, match="damaged"):
        T5Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("texts", "says"), [([3], "not int"), (["a" * 100_001], "100,001 characters"), (["\ud800"], "half a character")]
)
def test_what_is_no_text_is_refused(tokenizer, texts, says):
    with pytest.raises(UserError, match=says):
        tokenizer(texts)


def test_a_folder_of_clip_is_opened_as_one(tmp_path):
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    assert isinstance(open_tokenizer(tmp_path), ClipTokenizer)
