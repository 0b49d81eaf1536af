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
    assert summary([kept]) == "" and not any(lost.all_unknown for lost in words.lost(["", "  "]))
    assert all(lost.all_unknown for lost in words.lost(["!?", "\N{GRINNING FACE}"]))


def test_new_words_become_their_ids_before_a_caption_is_cut_into_words():
    plain = WordTokenizer(["a", "red", "cat"], length=7)
    words = plain.with_words({"<Red-Cat>": (6, 7), "sks": (8,), "<red-cat>_b": (9,)})
    a, red, cat = (FIRST + i for i in range(3))
    assert words(["a <red-cat>, red"]).tolist() == [[a, 6, 7, red, END, PAD, PAD]]
    assert words(["A <RED-CAT> <red-cat>_b sks"]).tolist() == [[a, 6, 7, 9, 8, END, PAD]]
    assert words(["sks desks sksy"]).tolist() == [[8, UNKNOWN, UNKNOWN, END, PAD, PAD, PAD]]
    assert words(["a red cat"]).tolist() == plain(["a red cat"]).tolist()
    assert plain(["a <red-cat>"]).tolist() == [[a, red, cat, END, PAD, PAD, PAD]]
    assert words.ids("cat <red-cat>") == [cat, 6, 7] and words != plain
    (lost,) = words.lost(["a a a a a <red-cat> zebra"])
    assert (lost.cut, lost.text, lost.unknown) == (2, "<red-cat> zebra", ("zebra",))
    assert plain.with_words({}) is plain


@pytest.mark.parametrize(
    ("word", "message"),
    [("cat", "'cat' is in the vocabulary already"), ("Cat", "already"), ("", "empty"), ("<a b>", "has a space")],
)
def test_a_word_that_exists_or_is_none_is_no_new_word(word, message):
    with pytest.raises(UserError, match=message):
        WordTokenizer(["a", "cat"], length=4).with_words({word: (5,)})
    with pytest.raises(UserError, match="'<X>' is in the vocabulary already"):
        WordTokenizer(["a"], length=4).with_words({"<x>": (5,)}).with_words({"<X>": (6,)})


def test_ids_of_a_text_need_words_that_are_known():
    assert WordTokenizer(["a", "cat"], length=4).ids("a CAT") == [FIRST, FIRST + 1]
    with pytest.raises(UserError, match="'car' is not in the captions' vocabulary; did you mean 'cat'"):
        WordTokenizer(["a", "cat"], length=4).ids("a car")
