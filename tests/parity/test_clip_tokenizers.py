"""A CLIP tokenizer in both forms of its files, with added and special tokens: the ids are those of transformers."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

transformers = pytest.importorskip("transformers", reason="parity needs transformers: install the extra 'parity'")

from jaxgen.data.clip_tokenizer import END, START, ClipTokenizer  # noqa: E402

pytestmark = pytest.mark.parity

MERGES = ["t h", "th e</w>", "c a", "ca t</w>", "d o", "do g</w>", "Ã ©</w>", "' s</w>", "! !</w>", "< c", "a t"]
TEXTS = [
    "",
    " ",
    "the cat",
    "a photo of a <cat-toy>",
    "a<cat-toy>b <CAT-TOY> <cat-toy",
    "<cat-toy><cat-toy>  <cat-toy>",
    "the  <left>  cat <right>  dog  <both>  ",
    "words <word> inword<word>in <word>.",
    "cat!",
    "! !! !!! a!b",
    "!",
    f"{START} in {END} the {END}{END} text",
    "The CAT's DOG'S don't 've '",
    "caf\u00e9 CAFE\u0301 na\u00efve",
    "\u65e5\u672c \u041f\u0440\u0438 \u0660\u0661",
    "\U0001f642\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "tab\tnew\nline\r\n\x0b\x0c\x1c\x85\u2028\u3000end",
    "nul\x00 bell\x07 esc\x1b",
    "pneumono" * 60,
    "the " * 100,
    "\u1e9e \u0130stanbul \ufb01 \u212b",
    "\u202eright\u202c \ufeffmark",
    "<Upper> <upper> <UPPER>",
    "a_b-c/d\\\\e#f",
    "<acc\u00e9nt> <acce\u0301nt>",
    "cat<pad>cat",
]


def characters() -> list[str]:
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(ord("\u00ae"), 256)]
    return [chr(x) for x in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def write(folder: pathlib.Path) -> int:
    """Writes vocab.json and merges.txt; returns the first free id."""
    letters = characters()
    entries = [*letters, *(x + "</w>" for x in letters), *(x.replace(" ", "") for x in MERGES), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({x: i for i, x in enumerate(entries)}), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n", encoding="utf-8")
    return len(entries)


def flags(content: str, **more) -> dict:
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    return {"content": content, **plain, **more}


NEW = 256 * 2 + len(MERGES) + 2
TYPED = {"__type": "AddedToken"}
DECODER = {
    str(NEW): flags("<left>", lstrip=True),
    str(NEW + 1): flags("<right>", rstrip=True, normalized=True),
    str(NEW + 2): flags("<both>", lstrip=True, rstrip=True, special=True),
    str(NEW + 3): flags("<word>", single_word=True),
    str(NEW + 4): flags("<Upper>", normalized=True),
    str(NEW + 5): flags("<acc\u00e9nt>", normalized=True),
    "0": flags("!", special=True),
}
FORMS = {
    "plain": {},
    "textual inversion": {"added_tokens": {"<cat-toy>": NEW, "<Upper>": NEW + 1}},
    "special among the added": {
        "added_tokens": {"<cat-toy>": NEW, "<Upper>": NEW + 1},
        "special_tokens_map": {"additional_special_tokens": ["<Upper>"], "pad_token": "!"},
    },
    "Stable Diffusion 1": {
        "special_tokens_map": {
            "bos_token": flags(START, normalized=True),
            "eos_token": flags(END, normalized=True),
            "pad_token": END,
            "unk_token": flags(END, normalized=True),
        },
        "tokenizer_config": {
            "bos_token": {**TYPED, **flags(START, normalized=True)},
            "eos_token": {**TYPED, **flags(END, normalized=True)},
            "pad_token": END,
            "unk_token": {**TYPED, **flags(END, normalized=True)},
            "add_prefix_space": False,
            "do_lower_case": True,
            "model_max_length": 77,
        },
    },
    "Stable Diffusion 2": {"special_tokens_map": {"pad_token": "!", "eos_token": flags(END, normalized=True)}},
    "padding named in the config": {"tokenizer_config": {"pad_token": "!"}},
    "padding that is new": {"added_tokens": {"<pad>": NEW}, "special_tokens_map": {"pad_token": "<pad>"}},
    "decoder of added tokens": {
        "tokenizer_config": {"added_tokens_decoder": DECODER, "pad_token": "!"},
        "added_tokens": {"<cat-toy>": NEW},  # does not count then
        "special_tokens_map": {"pad_token": END},  # nor does this
    },
    "special tokens are cut": {"added_tokens": {"<cat-toy>": NEW}, "tokenizer_config": {"split_special_tokens": True}},
    "more special tokens": {
        "tokenizer_config": {"extra_special_tokens": ["<left>", "<right>"], "image_token": "<word>"}
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_give_the_ids_of_transformers(form, tmp_path):
    assert write(tmp_path / "first") == NEW
    for name, content in FORMS[form].items():
        (tmp_path / "first" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    peer = transformers.CLIPTokenizer.from_pretrained(tmp_path / "first")
    peer.save_pretrained(tmp_path / "whole")
    assert (tmp_path / "whole" / "tokenizer.json").is_file()
    for folder in (tmp_path / "first", tmp_path / "whole"):
        peer = transformers.CLIPTokenizer.from_pretrained(folder)
        tokenizer = ClipTokenizer.from_folder(folder)
        for length in (77, 7):
            told = peer(TEXTS, padding="max_length", max_length=length, truncation=True, return_tensors="np").input_ids
            for text, row, wanted in zip(TEXTS, tokenizer.tokenize(TEXTS, length), told, strict=True):
                np.testing.assert_array_equal(row, wanted, err_msg=f"{folder.name} {text!r}")


def test_new_words_have_the_ids_of_tokens_that_transformers_adds(tmp_path):
    first = write(tmp_path)
    ours, theirs = ClipTokenizer.from_folder(tmp_path), transformers.CLIPTokenizer.from_pretrained(tmp_path)
    words = ["<cat-toy>", "<Upper>", "<word>", "<acc\u00e9nt>"]
    assert theirs.add_tokens(words) == len(words)
    added = {word: (theirs.convert_tokens_to_ids(word),) for word in words}
    assert set(added.values()) == {(first + i,) for i in range(len(words))}
    wanted = theirs(TEXTS, padding="max_length", truncation=True, max_length=77)["input_ids"]
    np.testing.assert_array_equal(ours.with_words(added).tokenize(TEXTS), wanted)
