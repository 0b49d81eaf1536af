"""Labels and tokens that a network does not know are found on the host, wherever a batch comes from.

Inside a program a table would be read at another row: JAX moves an index that is too large to the last one.
"""

from __future__ import annotations

import numpy as np
import pytest
from running import opened
from tiny_latents import make
from tiny_methods import ddpm_config

from jaxgen.data.source import Source
from jaxgen.errors import UserError
from jaxgen.methods.base import Model, check_limits
from jaxgen.runs.setup import make_method
from jaxgen.sampling.generator import Generator


class Labelled(Source):
    """Black images, whose labels are `argument`, once and again."""

    def __len__(self):
        return 16

    def __getitem__(self, index):
        labels = [int(word) for word in self.request.argument.split("-")]
        return {"image": np.zeros((8, 8, 1), np.uint8), "label": np.int32(labels[index % len(labels)])}


class Held(Labelled):
    """As `Labelled`, in memory, with a wrong label in the last example only."""

    def __init__(self, request):
        super().__init__(request)
        labels = np.arange(16, dtype=np.int32) % 10
        labels[-1] = int(request.argument)
        self.arrays = {"image": np.zeros((16, 8, 8, 1), np.uint8), "label": labels}


def config(source):
    found = ddpm_config(num_classes=10)
    found.data.update(source=source, num_classes=10)
    return found


@pytest.mark.parametrize("source, wrong", [("Labelled:3-10", 10), ("Labelled:0-12-4", 12), ("Held:255", 255)])
def test_a_label_that_is_no_class_is_found_before_training(tmp_path, source, wrong):
    with pytest.raises(UserError, match=rf"label {wrong}, .*\[0, 10\).*config.data.num_classes"):
        with opened(config(f"{__name__}:{source}"), tmp_path):
            pass


def test_scores_of_labels_that_are_no_classes_are_refused():
    made = config(f"{__name__}:Labelled:3-10")
    generator = Generator(make_method(made), made)
    with pytest.raises(UserError, match="label 10"):
        generator.scores(Model({}, {}), 0, generator.source("test"))


@pytest.mark.parametrize("name, wrong", [("tokens", 9), ("tokens", -1), ("null_tokens", 400)])
def test_a_token_that_is_not_in_the_vocabulary_is_found(name, wrong):
    method = make(text=True)
    assert method.limits["tokens"] == 9 and make(classes=3).limits == {"label": 3} and make().limits == {}
    tokens = np.array([[4, 5, 1, 0, 0], [8, 1, 0, 0, 0]], np.int32)
    check_limits(method, {"tokens": tokens, "label": np.array([7])})
    tokens[1, 3] = wrong
    with pytest.raises(UserError, match=rf"{name} {wrong}, and LatentDiffusion knows those in \[0, 9\).*tokenizer"):
        check_limits(method, {name: tokens})
