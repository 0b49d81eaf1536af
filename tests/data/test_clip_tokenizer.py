"""CLIP's tokenizer on a small vocabulary made here, by hand and against transformers where that is installed."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tokenizers

from jaxgen.data.clip_tokenizer import END, START, ClipTokenizer
from jaxgen.data.tokenizer_files import Read
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
    # the second of these files wins, and padding stands for itself within a text, too
    for file, told in (("tokenizer_config.json", END), ("special_tokens_map.json", {"content": "!"})):
        (tmp_path / file).write_text(json.dumps({"pad_token": told}))
    found = ClipTokenizer.from_folder(tmp_path).tokenize("cat !", 6)[0]
    assert found[2:].tolist() == [0, ids[END], 0, 0]


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
    texts = TEXTS
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
    with pytest.raises(UserError, match="vocab.json is not valid JSON"):
        ClipTokenizer.from_folder(tmp_path)
    (tmp_path / "vocab.json").write_text('{"t": 0, "h": 1}')
    with pytest.raises(UserError, match="'t h' needs 'th', which the vocabulary lacks: they make no tokenizer"):
        ClipTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer.json: the entry 'model' is missing"):
        ClipTokenizer.from_folder(tmp_path)
    with pytest.raises(UserError, match="There is no file"):
        ClipTokenizer.from_file(tmp_path / "other.json")
    for file in ("vocab.json", "merges.txt"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(UserError, match="tokenizer_config.json is not valid JSON"):
        ClipTokenizer.from_folder(tmp_path)


def test_a_foreign_vocabulary_and_other_texts_are_refused(folder):
    other = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, []))
    with pytest.raises(UserError, match="no '<|startoftext|>'"):
        ClipTokenizer(Read(other, START, END, END, END))
    with pytest.raises(UserError, match="half a character"):
        ClipTokenizer.from_folder(folder).tokenize("a \ud83d b")
    tokenizer = ClipTokenizer.from_folder(folder)
    with pytest.raises(UserError, match="reads texts, not int"):
        tokenizer.tokenize(["cat", 3])
    with pytest.raises(UserError, match=r"'cat cat .* has 4,000,000 characters, where at most 100,000"):
        tokenizer.tokenize(["cat " * 1_000_000])
    with pytest.raises(UserError, match="length is 1"):
        tokenizer.tokenize("cat", length=1)
    with pytest.raises(UserError, match="no token 'nothing' to pad with"):
        ClipTokenizer.from_folder(folder, pad="nothing")


def copy_of(folder, place, **files):
    """A copy of a folder with more JSON files, whose names lack ".json"."""
    shutil.copytree(folder, place, dirs_exist_ok=True)
    for name, content in files.items():
        (place / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return place


def test_added_tokens_stay_whole(folder, ids, tmp_path):
    new = len(ids)
    place = copy_of(folder, tmp_path, added_tokens={"<cat-toy>": new, "<Dog>": new + 1})
    tokenizer = ClipTokenizer.from_folder(place)
    assert tokenizer.vocabulary == new + 2
    found = tokenizer.tokenize("the<cat-toy>cat <dog>", 8)[0].tolist()
    assert found[:6] == [ids[START], ids["the</w>"], new, ids["cat</w>"], new + 1, ids[END]]


def test_the_padding_token_is_special_within_a_text(folder, ids, tmp_path):
    for name in ("special_tokens_map", "tokenizer_config"):
        place = copy_of(folder, tmp_path / name, **{name: {"pad_token": "!"}})
        found = ClipTokenizer.from_folder(place).tokenize("cat!!", 6)[0].tolist()
        assert found == [ids[START], ids["cat</w>"], ids["!"], ids["!"], ids[END], ids["!"]]


def test_what_is_cut_and_unknown_is_told(folder, tmp_path):
    tokenizer = ClipTokenizer.from_folder(folder)
    whole, cut = tokenizer.lost(["the cat", "the cat the  Dog's dog"], 5)
    assert not whole and whole.told("prompt 1") == ""
    assert cut.told("prompt 2") == 'prompt 2: 3 tokens past 3 are cut: "Dog\'s dog".'
    short = {entry: number for number, entry in enumerate(["c", "a", "ca", "cat</w>", "t</w>", START, END])}
    place = copy_of(folder, tmp_path, vocab=short)
    (place / "merges.txt").write_text("c a\nca t</w>\n")
    some, none = ClipTokenizer.from_folder(place).lost(["cat é", "é"])
    assert not some.all_unknown and none.all_unknown
    assert set("".join(some.unknown)) == {"é"}


WRONG = [
    ({"added_tokens": {"<x>": 7000}}, "'<x>' is told to have the id 7000, but after the vocabulary its id is"),
    ({"added_tokens": {"<x>": "7"}}, "'<x>' is \"7\", where a whole number is needed"),
    ({"tokenizer_config": {"pad_token": 3}}, "tokenizer_config.json: 'pad_token' is 3, where a text"),
    ({"tokenizer_config": {"padding_side": "left"}}, "padding_side='left' has no equivalent here"),
    ({"tokenizer_config": {"model_max_length": "77"}}, "'model_max_length' is \"77\", where a number or null"),
    ({"tokenizer_config": {"added_tokens_decoder": {"a": {"content": "x"}}}}, "the key 'a' .* is no id"),
    (
        {"tokenizer_config": {"added_tokens_decoder": {"9": {"content": 3}}}},
        "'added_tokens_decoder.9.content' is 3, where a text",
    ),
    ({"vocab": {"a": -1}}, "vocab.json: 'a' is -1, where"),
    ({"vocab": ["a"]}, "vocab.json: it holds"),
    ({"special_tokens_map": {"pad_token": "\ud83d"}}, "special_tokens_map.json holds .ud83d, half a character"),
]


@pytest.mark.parametrize(("files", "words"), WRONG)
def test_entries_of_other_types_are_named(folder, tmp_path, files, words):
    with pytest.raises(UserError, match=words):
        ClipTokenizer.from_folder(copy_of(folder, tmp_path, **files))


def test_a_token_of_the_unknown_is_needed_only_where_a_byte_is_lacking(folder, ids, tmp_path):
    place = copy_of(folder, tmp_path, special_tokens_map={"unk_token": "[PAD]"})
    wanted = ClipTokenizer.from_folder(folder).tokenize(TEXTS[:8])
    np.testing.assert_array_equal(ClipTokenizer.from_folder(place).tokenize(TEXTS[:8]), wanted)
    copy_of(folder, place, vocab={entry: number for entry, number in ids.items() if entry != "q"})
    with pytest.raises(UserError, match=r"lacks 'q', and has no token '\[PAD\]' \(unk_token\)"):
        ClipTokenizer.from_folder(place)


def test_new_words_become_their_ids(folder, ids):
    plain = ClipTokenizer.from_folder(folder, length=10)
    words = plain.with_words({"<Cat-Toy>": (700, 701), "sks": (702,)})
    cat, dog = ids["cat</w>"], ids["dog</w>"]
    assert words.ids("the <cat-toy> DOG<CAT-TOY> sks") == [ids["the</w>"], 700, 701, dog, 700, 701, 702]
    assert 702 not in words.ids("desks skss") and words.ids("cat") == plain.ids("cat") == [cat]
    assert words.tokenize("cat <cat-toy>")[0, :5].tolist() == [ids[START], cat, 700, 701, ids[END]]
    assert (words.vocabulary, words.end, words.pad) == (plain.vocabulary, plain.end, plain.pad)
    (lost,) = words.lost("cat cat cat <cat-toy> dog", length=6)
    assert (lost.cut, lost.text) == (2, "<cat-toy> dog")


@pytest.mark.parametrize(
    ("word", "message"),
    [("cat", "'cat' is in .* already"), ("CAT", "already"), (END, "already"), ("", "empty"), ("a b", "has a space")],
)
def test_a_word_that_exists_or_is_none_is_no_new_word(folder, word, message):
    with pytest.raises(UserError, match=message):
        ClipTokenizer.from_folder(folder).with_words({word: (700,)})
