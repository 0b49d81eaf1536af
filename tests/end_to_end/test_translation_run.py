"""A translation as its user has it: written for the authors' code, begun from their file, and refused in a sentence."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import running
import tiny
from tiny_doors import prepared

from jaxgen.interop.translation import networks
from jaxgen.interop.translation.networks import from_tensors, to_tensors
from jaxgen.runs.setup import make_method
from jaxgen.sampling import export
from jaxgen.sampling.restore import restore


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The config of a tiny CycleGAN, and the workdir of its run of two steps."""
    folder = tmp_path_factory.mktemp("cyclegan")
    config = prepared("cyclegan", folder)
    config.optimizer.update(decay="constant", constant_images=0, decay_images=0)
    running.run(config, folder / "run", 16)
    return config, folder / "run"


@pytest.mark.slow
def test_generators_are_written_and_a_run_begins_with_them(run, tmp_path):
    config, workdir = run
    out = tmp_path / "authors"
    assert set(export.export(workdir, out)) == {"latest_net_G_A.pth", "latest_net_G_B.pth"}
    network, params, memory = networks.read(out / "latest_net_G_B.pth")
    method = make_method(config)
    assert network.clone(image_shape=method.image_shape) == method.generator and memory == {}
    trained = restore(config, workdir).model.params["to_image"]
    jax.tree.map(np.testing.assert_array_equal, params, jax.tree.map(np.asarray, trained))
    config.init_from.to_image = f"pix2pix:{out / 'latest_net_G_B.pth'}"
    with running.opened(config, tmp_path / "again") as begun:
        first = jax.tree.map(np.asarray, begun.state.params["to_image"])
    jax.tree.map(np.testing.assert_array_equal, first, params)


def test_weights_go_to_the_authors_layout_and_back():
    from jaxgen.networks.translation.unet import TranslationUNet

    network = TranslationUNet((8, 8, 1), 2, 3, dropout_blocks=0, norm="affine_instance")
    shapes = jax.eval_shape(network.init, jax.random.key(0), None, condition=np.zeros((1, 8, 8, 1), np.float32))
    chance = np.random.default_rng(0)
    params = jax.tree.map(lambda x: chance.normal(size=x.shape).astype(np.float32), shapes["params"])
    tensors = to_tensors(network, params)
    again, memory = from_tensors(network, tensors)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert memory == {} and networks.recognise(tensors) == network


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model.strange.weight": np.zeros((2, 2), np.float32)}, "have model.strange.weight"),
        ({"model.model.0.weight": None}, "of no network that is known"),
        ({"model.model.3.weight": None}, "no model.model.3.weight"),
    ],
)
def test_files_of_other_networks_are_refused(change, said):
    from jaxgen.errors import UserError
    from jaxgen.networks.translation.unet import TranslationUNet

    network = TranslationUNet((8, 8, 1), 2, 3, dropout_blocks=0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), None, condition=np.zeros((1, 8, 8, 1), np.float32))
    params = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes["params"])
    tensors = {k: v for k, v in {**to_tensors(network, params), **change}.items() if v is not None}
    with pytest.raises(UserError, match=said):
        from_tensors(networks.recognise(tensors), tensors)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--config.method.generator.downs=6",), "64 divides, not 32x32"),
        (("--config.data.rename.condition=colour",), "colour"),
        (("--config.method.discriminator.reads=('hint',)",), "hint"),
        (("--config.method.generator.norm=batch",), "affine_instance"),
        (("--config.method.feature_matching=1", "--config.method.discriminator=dcgan_discriminator"), "layers"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_sentence(words, said, tmp_path, capsys):
    assert tiny.call("--config=configs/pix2pix_shapes.py", f"--workdir={tmp_path / 'run'}", *words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jaxgen: ")]
    assert len(lines) == 1 and said in lines[0], lines
