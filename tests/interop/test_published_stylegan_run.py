"""Published StyleGAN2 weights become a run that is sampled, and a run goes out and comes back."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxgen.config import to_json
from jaxgen.errors import UserError
from jaxgen.interop.stylegan.layout import published, variables_from
from jaxgen.networks.stylegan.style2 import Style2Discriminator, Style2Generator
from jaxgen.sampling.export import export
from jaxgen.sampling.publishing import stylegan
from jaxgen.sampling.restore import restore

SHAPE, CLASSES = (8, 8, 3), 3
GENERATOR = Style2Generator(
    SHAPE, z_dim=5, w_dim=4, depth=2, channels=2, max_channels=3, num_classes=CLASSES, conditioning="embedding"
)


def of(network, *inputs):
    leaves, tree = jax.tree.flatten(dict(jax.eval_shape(network.init, jax.random.key(0), *inputs)))
    rng = np.random.default_rng(1)
    found = jax.tree.unflatten(tree, [rng.normal(size=x.shape).astype(np.float32) for x in leaves])
    return published(found, network, SHAPE)


@pytest.fixture(scope="module")
def networks():
    judge = Style2Discriminator(channels=3, max_channels=5, num_classes=CLASSES, conditioning="projection", depth=1)
    label = jnp.zeros(1, jnp.int32)
    return {
        "generator": of(GENERATOR, jnp.zeros((1, 5)), label),
        "discriminator": of(judge, jnp.zeros((1, *SHAPE)), label),
    }


def test_sizes_classes_and_depths_are_those_of_the_arrays(networks):
    config = stylegan.published_config(networks, 8)
    assert config.method.generator.to_dict() == {
        "name": "style2_generator", "z_dim": 5, "w_dim": 4, "depth": 2, "channels": 2, "max_channels": 3,
        "conditioning": "embedding",
    }  # fmt: skip
    assert config.method.discriminator.to_dict() == {
        "name": "style2_discriminator", "channels": 3, "max_channels": 5, "conditioning": "projection",
        "residual": True, "group": 8, "depth": 1,
    }  # fmt: skip
    assert (config.data.resolution, config.data.channels, config.data.num_classes) == (8, 3, CLASSES)
    few = {**networks, "generator": {k: v for k, v in networks["generator"].items() if "torgb" not in k}}
    with pytest.raises(UserError, match="largest images are of 0 pixels"):
        stylegan.published_config(few)


@pytest.mark.parametrize(
    ("group", "name", "said"),
    [
        ("generator", "mapping.fc0.weight", r"generator's 'mapping.fc0.weight' has 1 axes, not 2: the file is damaged"),
        ("generator", "mapping.embed.weight", "'mapping.embed.weight' has 1 axes"),
        ("generator", "synthesis.b8.torgb.weight", "'synthesis.b8.torgb.weight' has 1 axes, not 4"),
        ("discriminator", "b4.conv.weight", "discriminator's 'b4.conv.weight' has 1 axes, not 4"),
    ],
)
def test_an_array_of_other_axes_is_named(networks, group, name, said):
    broken = {**networks, group: {**networks[group], name: networks[group][name].reshape(-1)}}
    with pytest.raises(UserError, match=said):
        stylegan.published_config(broken)
    del broken[group][name]
    if name != "mapping.embed.weight":
        with pytest.raises(UserError, match="has no '"):
            stylegan.published_config(broken)


def test_a_folder_with_one_network_is_refused(tmp_path):
    (tmp_path / "generator.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"has no discriminator.safetensors: a run of stylegan2 has"):
        stylegan.read_networks(tmp_path)


@pytest.mark.slow
def test_a_run_of_published_weights_is_sampled_and_goes_out_as_it_came_in(networks, tmp_path, capsys):
    from safetensors.numpy import load_file, save_file

    (tmp_path / "given").mkdir()
    for group, arrays in networks.items():
        save_file(arrays, tmp_path / "given" / f"{group}.safetensors")
    words = [str(tmp_path / "given"), str(tmp_path / "run")]
    assert stylegan.main(words) == 0 and "images of 8x8x3, 3 classes, 2 to 3 channels" in capsys.readouterr().out
    assert stylegan.main(words) == 2 and "has files already" in capsys.readouterr().err
    config = stylegan.published_config(networks)
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == json.loads(to_json(config))
    out = tmp_path / "out"
    assert tiny.call("--mode=sample", f"--workdir={tmp_path / 'run'}", "--num=3", "--labels=2,0,1", f"--out={out}") == 0
    drawn = np.load(out / "samples.npz")["images"]
    assert drawn.shape == (3, *SHAPE) and (drawn[0] != drawn[1]).any()
    # the same images as the network itself makes
    model = restore(config, tmp_path / "run").model
    z, label = jax.random.normal(jax.random.key(2), (4, 5)), jnp.arange(4) % CLASSES
    variables = variables_from(networks["generator"], GENERATOR, SHAPE)
    one = jax.jit(GENERATOR.apply)(variables, z, label)
    other = jax.jit(GENERATOR.apply)({"params": model.params["generator"], **model.memory["generator"]}, z, label)
    np.testing.assert_array_equal(one, other)
    # and out again
    export(tmp_path / "run", tmp_path / "again")
    for group, arrays in networks.items():
        again = load_file(tmp_path / "again" / f"{group}.safetensors")
        assert again.keys() == arrays.keys()
        for name, value in arrays.items():
            np.testing.assert_array_equal(again[name], value)
