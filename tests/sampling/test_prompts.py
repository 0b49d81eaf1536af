"""Texts for a model that was trained on captions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from jaxgen.config import defaults
from jaxgen.data.sources.caption_shapes import TOKENIZER
from jaxgen.errors import UserError
from jaxgen.sampling.generator import Generator


def asked(prompts, source="caption_shapes", conditions=("tokens",), words=None):
    config = defaults()
    config.data.update(source=source, resolution=8, channels=3 if source == "caption_shapes" else 1)
    generator = Generator(SimpleNamespace(conditions=conditions, ignored={}, gives="image"), config, words=words)
    generator.use_prompts(prompts)
    return generator.given["tokens"]


def test_texts_become_the_tokens_that_the_model_learned():
    texts = ["a red circle at the top left", "a yellow diamond at the bottom right"]
    tokens = asked(texts)
    np.testing.assert_array_equal(tokens, TOKENIZER(texts))
    assert [TOKENIZER.decode(row) for row in tokens] == texts


def test_words_of_an_adapter_are_known():
    tokens = asked(["a <new> circle", "a red circle"], words={"<new>": (40, 41)})
    plain = TOKENIZER(["a red circle"])[0]
    np.testing.assert_array_equal(tokens[0, :5], [plain[0], 40, 41, plain[2], plain[3]])
    np.testing.assert_array_equal(tokens[1], plain)


def test_what_a_prompt_loses_is_told(caplog):
    asked(["a red circle at the top left right right", "a red circle"])
    (line,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert line == "--prompt='a red circle at the top left right right': 2 tokens past 7 are cut: 'right right'."


def test_what_cannot_be_asked_is_said():
    with pytest.raises(UserError, match="mauve"):
        asked(["a mauve circle"])
    with pytest.raises(UserError, match="not conditional on text"):
        asked(["a red circle"], conditions=("label",))
    with pytest.raises(UserError, match="digits has none"):
        asked(["a red circle"], source="digits")
