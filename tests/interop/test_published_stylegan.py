"""Published StyleGAN2 weights: files that would run code, and the names and shapes of both networks."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.interop.stylegan.layout import published, variables_from
from jaxgen.interop.stylegan.published_file import read
from jaxgen.networks.stylegan.style2 import Style2Discriminator, Style2Generator

SHAPE = (8, 8, 3)


class Harmful:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("inside", [False, True])
def test_a_file_with_code_is_refused_by_name_and_nothing_is_run(tmp_path, inside):
    mark = tmp_path / "written"
    code = Harmful(exec, f"open({str(mark)!r}, 'w').close()")
    content = {"G_ema": [{"deep": code}] if inside else code}
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="builtins.exec"):
        read(tmp_path / "bad.pkl")
    assert not mark.exists()


def test_code_in_the_numbers_of_a_tensor_is_refused_too(tmp_path):
    mark = tmp_path / "written"
    numbers = b"".join(pickle.dumps(v) for v in (0x1950A86A20F9469CFC6C, 1001, {}))
    numbers += pickle.dumps(Harmful(exec, f"open({str(mark)!r}, 'w').close()"))
    text = b"ctorch.storage\n_load_from_bytes\n" + pickle.dumps(numbers, 3)[2:-1] + b"\x85R."
    (tmp_path / "bad.pkl").write_bytes(b"\x80\x03" + text)
    with pytest.raises(UserError, match="builtins.exec"):
        read(tmp_path / "bad.pkl")
    assert not mark.exists()


def test_a_damaged_file_and_another_network_have_a_sentence(tmp_path):
    (tmp_path / "cut.pkl").write_bytes(pickle.dumps({"G": list(range(100))})[:-20])
    with pytest.raises(UserError, match="is damaged"):
        read(tmp_path / "cut.pkl")
    (tmp_path / "none.pkl").write_bytes(pickle.dumps({"other": 1}))
    with pytest.raises(UserError, match="no network 'G_ema'; it has none"):
        read(tmp_path / "none.pkl")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "missing.pkl")


def test_weights_go_out_and_come_back_and_those_of_another_size_are_refused():
    sizes = {"z_dim": 4, "w_dim": 4, "depth": 1, "channels": 2, "num_classes": 3, "conditioning": "embedding"}
    network = Style2Generator(SHAPE, **sizes)
    z, label = jnp.zeros((1, 4)), jnp.zeros(1, jnp.int32)
    variables = jax.jit(network.init)(jax.random.key(0), z, label)
    out = published(variables, network, SHAPE)
    assert out["synthesis.b8.conv0.weight"].shape == (2, 4, 3, 3) and out["mapping.fc0.weight"].shape == (4, 8)
    assert out["synthesis.b4.const"].shape == (4, 4, 4) and out["synthesis.b8.torgb.affine.weight"].shape == (2, 4)
    back = variables_from({**out, "synthesis.b8.resample_filter": np.zeros((4, 4))}, network, SHAPE)
    jax.tree.map(np.testing.assert_array_equal, back, dict(variables))
    with pytest.raises(UserError, match=r"no 'synthesis.b16.conv0.weight'"):
        variables_from(out, Style2Generator((16, 16, 3), **sizes | {"channels": 1}), (16, 16, 3))
    with pytest.raises(UserError, match="'synthesis.b4.const' has shape"):
        variables_from(out, Style2Generator(SHAPE, **sizes | {"channels": 4}), SHAPE)
    judge = Style2Discriminator(channels=2)
    seen = jax.jit(judge.init)(jax.random.key(0), jnp.zeros((1, *SHAPE)))
    out = published(seen, judge, SHAPE)
    assert out["b4.fc.weight"].shape == (4, 64) and out["b8.skip.weight"].shape == (4, 2, 1, 1)
    jax.tree.map(np.testing.assert_array_equal, variables_from(out, judge, SHAPE), dict(seen))
