"""A T5 tokenizer in both forms of its files: the ids are those of transformers."""

from __future__ import annotations

import numpy as np
import pytest

transformers = pytest.importorskip("transformers", reason="parity needs transformers: install the extra 'parity'")

from tiny_t5 import CHARMAP, charsmap, field, pieces, write_spiece  # noqa: E402

from jaxgen.data.subwords.t5_tokenizer import T5Tokenizer  # noqa: E402

pytestmark = pytest.mark.parity

TEXTS = [
    "", " ", "a red circle at the top left",
    "A Red  CIRCLE,  in\tthe middle ", "caf\u00e9 cafe\u0301 na\u00efve",
    "木 a 木木 star", "\ufb01 \uff21", "a</s>b <pad> <unk>",
    "<extra_id_0> the <extra_id_99>disc", "the " * 60, "\u2581a", "x-y_z!?",
    "\U0001f642 disc",
]  # fmt: skip


@pytest.fixture(scope="module", params=["plain", "replaced"])
def pair(request, tmp_path_factory):
    """A folder that transformers wrote, one with the spiece.model of the same tokenizer, and its own tokenizer."""
    folder = tmp_path_factory.mktemp("t5")
    table = charsmap(CHARMAP) if request.param == "replaced" else None
    names = [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)]
    theirs = transformers.T5Tokenizer(vocab=[*pieces(), *names], _spm_precompiled_charsmap=table)
    theirs.save_pretrained(folder / "whole")
    write_spiece(folder / "spiece", **({"normalizer": field(2, table)} if table else {}))
    return theirs, folder


@pytest.mark.parametrize("form", ["whole", "spiece"])
@pytest.mark.parametrize("length", [12, 100])
def test_ids_are_those_of_transformers(pair, form, length):
    theirs, folder = pair
    ours = T5Tokenizer.from_folder(folder / form, length=length)
    # without a table, sentencepiece does not take tabs for spaces, and transformers does
    texts = TEXTS if theirs._tokenizer.normalizer is not None else [text.replace("\t", " ") for text in TEXTS]
    wanted = theirs(texts, padding="max_length", truncation=True, max_length=length, return_tensors="np")["input_ids"]
    np.testing.assert_array_equal(ours(texts), wanted)
