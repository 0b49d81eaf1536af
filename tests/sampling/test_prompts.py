"""Texts for a model that was trained on captions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.data.sources.caption_shapes import TOKENIZER
from jaxgen.errors import UserError
from jaxgen.sampling.generator import Generator


def asked(prompts, source="caption_shapes", conditions=("tokens",)):
    config = SimpleNamespace(data=SimpleNamespace(eval_split="test"))
    opened = open_source(source, "test", resolution=8, channels=3 if source == "caption_shapes" else 1)
    method = SimpleNamespace(conditions=conditions, ignored={})
    generator = SimpleNamespace(method=method, config=config, source=lambda split: opened, _given={})
    Generator.use_prompts(generator, prompts)
    return generator._given["tokens"]


def test_texts_become_the_tokens_that_the_model_learned():
    texts = ["a red circle at the top left", "a yellow diamond at the bottom right"]
    tokens = asked(texts)
    np.testing.assert_array_equal(tokens, TOKENIZER(texts))
    assert [TOKENIZER.decode(row) for row in tokens] == texts


def test_what_cannot_be_asked_is_said():
    with pytest.raises(UserError, match="mauve"):
        asked(["a mauve circle"])
    with pytest.raises(UserError, match="not conditional on text"):
        asked(["a red circle"], conditions=("label",))
    with pytest.raises(UserError, match="digits has none"):
        asked(["a red circle"], source="digits")
