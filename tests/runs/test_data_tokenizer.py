"""`config.data.tokenizer`: captions become the tokens of a folder's tokenizer, in training and for prompts."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_t5 import write_spiece

from jaxgen.config import check, defaults, section
from jaxgen.errors import UserError
from jaxgen.runs.setup import open_split, text_tokenizer


def config_of(folder, **data):
    config = defaults()
    config.method = section(name="ddpm")
    config.train.total_images = 8
    config.data.update(source="caption_shapes:phrases", resolution=8, tokenizer=str(folder), token_length=40, **data)
    return config


def test_captions_of_any_source_become_its_tokens(tmp_path):
    config = config_of(write_spiece(tmp_path))
    check(config)
    source = open_split(config, "test")
    tokenizer = text_tokenizer(config)
    assert source.tokenizer == tokenizer and tokenizer.length == 40
    example = source[3]
    assert example["tokens"].shape == (40,)
    np.testing.assert_array_equal(example["tokens"], tokenizer([str(example["caption"])])[0])


def test_what_the_vocabulary_lacks_is_told(tmp_path):
    told = " ".join(open_split(config_of(write_spiece(tmp_path)), "test").notes)
    assert "not in the vocabulary" in told


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokenizer": "nowhere"}, "no folder nowhere"),
        ({"tokenizer": ""}, "token_length has no effect"),
        ({"source": "digits", "channels": 1}, "have no captions, and config.data.tokenizer names a tokenizer"),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_refused(tmp_path, change, says):
    config = config_of(write_spiece(tmp_path))
    config.data.update(**change)
    with pytest.raises(UserError, match=says):
        open_split(config, "test")


def test_two_tokenizers_are_refused(tmp_path):
    config = config_of(write_spiece(tmp_path))
    config.init_from.pretrained = str(tmp_path)
    with pytest.raises(UserError, match="leave config.data.tokenizer out"):
        text_tokenizer(config)
