"""Shapes with concepts: the base never sees them, and five pictures of each say where the word belongs."""

from __future__ import annotations

import numpy as np
import pytest

from configs.latent_diffusion_concepts import known_sentences
from jaxgen.data import open_source
from jaxgen.data.sources import shapes, tokenizer_of
from jaxgen.data.sources.concept_shapes import ATTRIBUTES, CONCEPTS, EXAMPLES, TOKENIZER, combinations
from jaxgen.errors import UserError

BOTH = "concept_shapes:ring=<ring>,striped=zwx"


def taken(source, split, count=None, resolution=8):
    opened = open_source(source, split, resolution, 3, 8)
    return opened.take(range(len(opened) if count is None else count))


def shows(example, concept):
    """Tells which images have a concept."""
    key = CONCEPTS[concept]
    return example["attributes"][:, ATTRIBUTES.index(key)] == shapes.NAMES[key].index(concept)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_base_has_no_concept_and_its_sentences_name_none(split):
    example = taken("concept_shapes", split, 2000)
    assert not any(shows(example, concept).any() for concept in CONCEPTS)
    words = {word for sentence in example["caption"] for word in sentence.split()}
    assert not words & {*CONCEPTS, "sks", "zwx", "plain"}
    assert {*words} <= {*TOKENIZER.words} and {*TOKENIZER.words} - words == {"sks", "zwx"}
    np.testing.assert_array_equal(example["tokens"], TOKENIZER(example["caption"].tolist()))
    assert set(example["caption"]) <= set(combinations())


@pytest.mark.parametrize("concept", CONCEPTS)
def test_five_pictures_of_a_concept_differ_in_everything_else(concept):
    example = taken(f"concept_shapes:{concept}=sks", "train")
    assert len(example["image"]) == EXAMPLES and shows(example, concept).all()
    assert all("sks" in sentence.split() and concept not in sentence for sentence in example["caption"])
    for column, key in enumerate(ATTRIBUTES):
        if key not in ("texture", CONCEPTS[concept]):
            assert len(set(example["attributes"][:, column])) == EXAMPLES
    tested = taken(f"concept_shapes:{concept}=sks", "test")
    assert shows(tested, concept).all()
    assert not any(shows(tested, other).any() for other in CONCEPTS if other != concept)
    assert len(np.unique(tested["attributes"], axis=0)) > 50


def test_several_concepts_have_their_pictures_each_and_share_those_of_together():
    trained, tested, together = (taken(BOTH, split) for split in ("train", "test", "together"))
    for example, count in ((trained, EXAMPLES), (tested, 500)):
        assert shows(example, "ring")[:count].all() and shows(example, "striped")[count:].all()
        assert shows(example, "ring").sum() == shows(example, "striped").sum() == count
    assert (shows(together, "ring") & shows(together, "striped")).all()
    assert all("zwx" in sentence and "<ring>" in sentence for sentence in together["caption"])
    alone = taken("concept_shapes:striped=zwx", "train")
    np.testing.assert_array_equal(trained["attributes"][EXAMPLES:], alone["attributes"])


def test_stripes_are_drawn():
    example = taken("concept_shapes:striped=sks", "train", resolution=64)
    first = example["image"][0].astype(int).sum(-1)  # a yellow square
    inside = first > 200
    assert 1.4 < first[inside].max() / first[inside].min() < 2.5


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("rings=sks", "did you mean 'ring'"),
        ("ring", "with the word that stands for it"),
        ("ring=", "with the word that stands for it"),
        ("ring=sks,ring=zwx", "give each concept once"),
    ],
)
def test_a_concept_without_a_word_is_refused(argument, said):
    with pytest.raises(UserError, match=said):
        open_source(f"concept_shapes:{argument}", "train", 8, 3)
    with pytest.raises(UserError, match="unseen"):
        open_source("concept_shapes", "unseen", 8, 3)


def test_what_a_tuning_rehearses_is_what_the_base_learned():
    assert len(set(known_sentences())) == 63 and set(known_sentences()) <= set(combinations())


def test_an_archive_says_by_which_tokenizer_its_tokens_were_made(tmp_path):
    example = open_source("concept_shapes", "test", 8, 3).take(range(20))
    path = tmp_path / "latents.npz"
    np.savez(path, images=example["image"], tokens=example["tokens"], captions=example["caption"])
    assert tokenizer_of(f"npz:{path}") is None and open_source(f"npz:{path}", "all", 8, 3).tokenizer is None
    (tmp_path / "latents.npz.tokenizer.json").write_text(TOKENIZER.to_json())
    assert tokenizer_of("npz:latents.npz", str(tmp_path)) == TOKENIZER
    assert open_source(f"npz:{path}", "all", 8, 3).tokenizer == TOKENIZER
