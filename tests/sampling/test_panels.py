"""How a method's pictures are laid out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from PIL import Image

from jaxgen.adversarial.mutual_information import Codes
from jaxgen.methods.gans.infogan import InfoGAN
from jaxgen.networks.gans.mlp import MLPDiscriminator, MLPGenerator
from jaxgen.sampling.outputs import write_panels


def test_a_table_has_the_columns_that_its_method_says(tmp_path):
    shape = (8, 8, 1)
    method = InfoGAN(MLPGenerator(shape), MLPDiscriminator(), shape, codes=Codes(categorical=(10,), continuous=1))
    pictures = {"categorical_0": np.zeros((30, *shape), np.float32), "other": np.zeros((30, *shape), np.float32)}
    generator = SimpleNamespace(method=method, panels=lambda *_: pictures)
    write_panels(tmp_path, generator, None, 0)
    sizes = [Image.open(tmp_path / f"panel_{name}.png").size for name in pictures]
    cells = [tuple((side - 1) // 49 for side in size) for size in sizes]  # of 48 pixels and a line
    assert cells == [(10, 3), (6, 5)]
    assert method.columns["continuous_0"] == method.columns["interpolation"] == 8
