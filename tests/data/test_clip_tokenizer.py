"""CLIP's tokenizer on a small vocabulary made here, by hand and against transformers where that is installed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tokenizers

from jaxgen.data.clip_tokenizer import END, START, ClipTokenizer
from jaxgen.errors import UserError

# each joins two pieces, in the order in which they are tried
MERGES = ["t h", "th e</w>", "c a", "ca t</w>", "d o", "do g</w>", "Ã ©</w>", "' s</w>", "! !</w>"]
TEXTS = [
    "the cat",
    "The CAT's  dog!!",
    "  a\tcat\nand 2011 dogs  ",
    "café, naïve, CAFE\u0301",  # the last as a letter and an accent
    "日本 Привет 🙂 ½",
    "don't we'll I'm they've she'd you're x's",
    "(the-cat) <b>dog</b> &amp; #1",
    "",
    "the " * 40,
    f"the {END} cat {START}",
    "ǅ İstanbul ẞ Σας",
]


def bytes_as_characters() -> list[str]:
    """The 256 printable characters that stand for bytes, as GPT-2 made them: those printable already come first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(x) for x in printable] + [chr(256 + i) for i in range(256 - len(printable))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """vocab.json and merges.txt as CLIP has them: bytes, bytes that end a piece, merges, then start and end."""
    path = tmp_path_factory.mktemp("tokenizer")
    characters = bytes_as_characters()
    entries = [*characters, *(x + "</w>" for x in characters), *(x.replace(" ", "") for x in MERGES), START, END]
    (path / "vocab.json").write_text(json.dumps({x: i for i, x in enumerate(entries)}), encoding="utf-8")
    (path / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ids(folder):
    return json.loads((folder / "vocab.json").read_text(encoding="utf-8"))


def test_words_are_merged_and_framed(folder, ids):
    found = ClipTokenizer.from_folder(folder).tokenize(["The  cat's dog", "xé"], length=8)
    assert found.dtype == np.int32 and found.shape == (2, 8)
    words = ["the</w>", "cat</w>", "'s</w>", "dog</w>"]
    assert found[0].tolist() == [ids[x] for x in (START, *words, END, END, END)]
    assert found[1].tolist() == [ids[x] for x in (START, "x", "Ã©</w>", END, END, END, END, END)]


def test_a_numeral_is_a_piece_and_letters_are_one(folder, ids):
    found = ClipTokenizer.from_folder(folder).tokenize("ab12!!", length=9)[0]
    assert found.tolist() == [ids[x] for x in (START, "a", "b</w>", "1</w>", "2</w>", "!!</w>", END, END, END)]


def test_long_texts_keep_their_end(folder, ids):
    tokenizer = ClipTokenizer.from_folder(folder)
    found = tokenizer.tokenize("the cat " * 50)
    assert found.shape == (1, 77) and found[0, -1] == tokenizer.end and (found[0, :-1] != tokenizer.end).all()
    exact = tokenizer.tokenize(["the cat", "the cat dog"], length=4)
    assert exact.tolist() == [[ids[x] for x in (START, "the</w>", "cat</w>", END)]] * 2


def test_padding_is_the_end_or_what_the_folder_says(folder, ids, tmp_path):
    assert ClipTokenizer.from_folder(folder).tokenize("cat", 5)[0, 3:].tolist() == [ids[END]] * 2
    assert ClipTokenizer.from_folder(folder, pad="!").tokenize("cat", 5)[0, 3:].tolist() == [0, 0]
    for file in ("vocab.json", "merges.txt"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    # Stable Diffusion 2's files disagree, and the second wins
    for file, told in (("tokenizer_config.json", END), ("special_tokens_map.json", {"content": "!"})):
        (tmp_path / file).write_text(json.dumps({"pad_token": told}))
    found = ClipTokenizer.from_folder(tmp_path).tokenize("cat !", 6)[0]
    assert found[2:].tolist() == [ids["!</w>"], ids[END], 0, 0]


def test_rows_do_not_depend_on_each_other(folder):
    tokenizer = ClipTokenizer.from_folder(folder)
    together = tokenizer.tokenize(TEXTS)
    for text, row in zip(TEXTS, together, strict=True):
        np.testing.assert_array_equal(tokenizer.tokenize(text)[0], row)


def test_a_file_is_the_same_tokenizer(folder, tmp_path):
    ClipTokenizer.from_folder(folder)._tokenizer.save(str(tmp_path / "tokenizer.json"))
    wanted = ClipTokenizer.from_folder(folder).tokenize(TEXTS)
    np.testing.assert_array_equal(ClipTokenizer.from_folder(tmp_path).tokenize(TEXTS), wanted)
    np.testing.assert_array_equal(ClipTokenizer.from_file(tmp_path / "tokenizer.json").tokenize(TEXTS), wanted)


@pytest.mark.parity
@pytest.mark.parametrize("length", [77, 9])
@pytest.mark.parametrize("pad", [END, "!"])
def test_ids_are_those_of_transformers(folder, tmp_path, length, pad):
    transformers = pytest.importorskip("transformers")
    texts = [text.replace(pad, "?") for text in TEXTS] if pad == "!" else TEXTS  # there "!" is padding everywhere
    peer = transformers.CLIPTokenizer.from_pretrained(folder, pad_token=pad)
    told = peer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="np")["input_ids"]
    np.testing.assert_array_equal(ClipTokenizer.from_folder(folder, pad).tokenize(texts, length), told)
    peer.save_pretrained(tmp_path)  # tokenizer.json, and a config that names the padding
    np.testing.assert_array_equal(ClipTokenizer.from_folder(tmp_path).tokenize(texts, length), told)


def test_damaged_folders_are_one_sentence(folder, tmp_path):
    with pytest.raises(UserError, match="neither tokenizer.json nor vocab.json"):
        ClipTokenizer.from_folder(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(UserError, match="nor merges.txt"):
        ClipTokenizer.from_folder(tmp_path)
    (tmp_path / "merges.txt").write_bytes((folder / "merges.txt").read_bytes())
    with pytest.raises(UserError, match="make no tokenizer"):
        ClipTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer.json is damaged"):
        ClipTokenizer.from_folder(tmp_path)
    with pytest.raises(UserError, match="There is no file"):
        ClipTokenizer.from_file(tmp_path / "other.json")
    for file in ("vocab.json", "merges.txt"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(UserError, match="no settings of a tokenizer"):
        ClipTokenizer.from_folder(tmp_path)


def test_a_foreign_vocabulary_and_other_texts_are_refused(folder):
    other = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, []))
    with pytest.raises(UserError, match="no '<|startoftext|>'"):
        ClipTokenizer(other)
    tokenizer = ClipTokenizer.from_folder(folder)
    with pytest.raises(UserError, match="reads texts, not int"):
        tokenizer.tokenize(["cat", 3])
    with pytest.raises(UserError, match="length is 1"):
        tokenizer.tokenize("cat", length=1)
    with pytest.raises(UserError, match="no 'nothing'"):
        ClipTokenizer.from_folder(folder, pad="nothing")
