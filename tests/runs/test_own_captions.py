"""Pictures without texts, of each of which the config says the same few things."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_finetune
import tiny_pipeline

from jaxgen.config import section
from jaxgen.config.checks import check
from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.interop.diffusers_pipeline import read_tokenizer
from jaxgen.runs.setup import make_loader, new_words, open_split, training_sources

TEXTS = ("a red {}", "the {} , a {}", "a dog")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of diffusers, and pictures without captions."""
    place = tmp_path_factory.mktemp("concept")
    tiny_pipeline.write(place / "model")
    tiny_finetune.write_pictures(place / "pictures", captions=False)
    return place


@pytest.fixture
def config(place):
    made = tiny_finetune.finetune_config(place / "model", place / "pictures")
    made.method = section(name="tuned", grafts=section(word=section(name="token_rows", word="<zorg>", initial="cat")))
    made.data.captions = TEXTS
    return made


def test_every_image_has_every_text_once(config, place):
    check(config)
    source, plain = open_split(config, "train"), open_source(f"folder:{place / 'pictures'}", "train", 16, 3)
    count = len(plain)
    assert len(source) == 3 * count and f"{count} images, each with 3 texts" in source.summary()
    filled = [text.replace("{}", "<zorg>") for text in TEXTS]
    assert [str(source[i]["caption"]) for i in range(len(source))] == [filled[i // count] for i in range(3 * count)]
    rows = source.take([2 * count + 1, 4, count])
    np.testing.assert_array_equal(rows["image"], plain.take([1, 4, 0])["image"])
    tokenizer = read_tokenizer(place / "model", tiny_pipeline.LENGTH).with_words(new_words(config))
    np.testing.assert_array_equal(rows["tokens"], tokenizer([filled[2], filled[0], filled[1]]))
    with pytest.raises(IndexError):
        source[len(source)]


def test_batches_go_on_in_the_same_order(config):
    loader = make_loader(config, training_sources(config))
    first = [next(loader)["tokens"] for _ in range(3)]
    state = loader.get_state()
    later = next(loader)["tokens"]
    again = make_loader(config, training_sources(config))
    again.set_state(state)
    np.testing.assert_array_equal(next(again)["tokens"], later)
    assert len({row.tobytes() for row in np.concatenate(first)}) == 3
    loader.close()
    again.close()


def test_a_further_source_has_texts_of_its_own(config, place):
    config.data.extra.prior = section(source=f"folder:{place / 'pictures'}", split="train", captions=("a dog",))
    check(config)
    prior = training_sources(config)["prior"]
    assert prior[0]["caption"] == "a dog" and prior.arrays["tokens"].shape == (len(prior), tiny_pipeline.LENGTH)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data.captions": ("a {}", 3)}, "config.data.captions must be texts, .* of which 3 is none"),
        ({"data.captions": ("a {}", " ")}, "of which ' ' is none"),
        ({"data.captions": "a cat"}, "config.data.captions must be of type tuple"),
        ({"data.extra.prior": section(source="digits", split="train", captions=("",))}, "extra.prior.captions must be"),
        ({"method": section(name="latent_diffusion")}, "{} stands for the word .* and this config teaches none"),
        (
            {"method.grafts.other": section(name="token_rows", word="<yak>", initial="dog")},
            "this config teaches <yak>, <zorg>; write the one that is meant",
        ),
        ({"init_from": section(), "method": section(name="ddpm")}, "no tokenizer is known for its texts"),
    ],
)
def test_texts_that_will_not_do(config, change, told):
    for key, value in change.items():
        *path, last = key.split(".")
        part = config
        for name in path:
            part = part[name]
        part[last] = value
    with pytest.raises(UserError, match=told) as caught:
        check(config)
        training_sources(config)
    assert "\n" not in str(caught.value)


def test_captions_of_the_data_are_replaced_and_that_is_told(config, place):
    tiny_finetune.write_pictures(place / "told")
    config.data.source = f"folder:{place / 'told'}"
    assert "each with 3 texts in place of its own caption" in open_split(config, "train").summary()
