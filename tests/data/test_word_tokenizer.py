"""Words and numbers: there and back, what is cut, and what is unknown."""

from __future__ import annotations

import pytest

from jaxgen.data.lost_text import summary
from jaxgen.data.word_tokenizer import END, FIRST, PAD, UNKNOWN, WordTokenizer
from jaxgen.errors import UserError

CAPTIONS = ["A cat's face, grinning", "a cat", "the Cat 2"]


def test_words_become_numbers_and_come_back():
    words = WordTokenizer.of(CAPTIONS, length=6)
    assert words.words == ("a", "cat", "2", "cat's", "face", "grinning", "the")  # by frequency, then by alphabet
    assert words.size == FIRST + 7
    ids = words(["The cat"])
    assert ids.tolist() == [[FIRST + 6, FIRST + 1, END, PAD, PAD, PAD]] and ids.dtype == "int32"
    assert [words.decode(row) for row in words(CAPTIONS)] == ["a cat's face grinning", "a cat", "the cat 2"]


def test_long_captions_are_cut_and_empty_ones_are_an_end():
    words = WordTokenizer(["a", "b"], length=3)
    assert words(["a b a b", ""]).tolist() == [[FIRST, FIRST + 1, END], [END, PAD, PAD]]


def test_rare_words_are_left_out_and_read_as_unknown():
    words = WordTokenizer.of(CAPTIONS, length=4, least=2)
    assert words.words == ("a", "cat")
    assert words(["a dog"]).tolist() == [[FIRST, UNKNOWN, END, PAD]]
    assert words.decode(words(["a dog"])[0]) == "a ?"
    strict = WordTokenizer(words.words, 4, strict=True)
    with pytest.raises(UserError, match=r"'cart'.*cat"):
        strict(["a cart"])


def test_a_vocabulary_survives_json():
    words = WordTokenizer(["é", "b"], 5, strict=True)
    again = WordTokenizer.from_json(words.to_json())
    assert (again.words, again.length, again.strict) == (words.words, 5, True)
    for broken in (
        "", "[]", '{"words": ["a"]}', "[" * 10**5, '{"words": "ab", "length": 5, "strict": true}',
        '{"words": ["a"], "length": 1000000000000, "strict": true}', '{"words": ["a"], "length": "5", "strict": true}',
    ):  # fmt: skip
        with pytest.raises(UserError, match="^pets.json"):
            WordTokenizer.from_json(broken, "pets.json")


def test_a_vocabulary_has_each_word_once():
    with pytest.raises(UserError, match="each word once"):
        WordTokenizer(["a", "a"], 4)


def test_what_is_cut_and_unknown_is_told():
    words = WordTokenizer(["a", "red", "ball"], length=4)
    kept, cut, strange = words.lost(["a red ball", "a red, red BALL!", "zebra gnu"])
    assert not kept and not kept.told("caption 1")
    assert cut.told("caption 2") == "caption 2: 1 token past 3 are cut: 'ball!'."
    assert strange.all_unknown and strange.told("caption 3") == "caption 3: not in the vocabulary: 'zebra', 'gnu'."
    told = summary([kept, cut, strange, strange])
    assert told == "1 of 4 captions are cut; 2 words are not in the vocabulary: 'gnu', 'zebra'."
    assert summary([kept]) == "" and not words.lost([""])[0].all_unknown
