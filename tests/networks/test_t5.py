"""The T5 encoder: what its features depend on, and its folders; against transformers in tests/parity."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.interop.text_encoders.t5 import load_t5, save_t5
from jaxgen.networks.pretrained.t5 import T5Encoder
from jaxgen.runs.published import published

ENCODER = T5Encoder(12, length=10, width=8, depth=2, heads=2, head_width=3, mlp_features=6, buckets=8, farthest=6)
TOKENS = np.array([[5, 6, 7, 1, 0, 0], [3, 4, 1, 0, 0, 0]], np.int32)


@pytest.fixture(scope="module")
def params():
    drawn = ENCODER.init(jax.random.key(0), TOKENS)["params"]
    return jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), drawn)


@pytest.fixture(scope="module")
def encode(params):
    program = jax.jit(lambda tokens, mask: ENCODER.apply({"params": params}, tokens, mask))
    return lambda tokens: program(jnp.asarray(tokens, jnp.int32), jnp.asarray(tokens) != 0)


@pytest.mark.nightly
def test_padding_and_neighbours_change_nothing(encode):
    features, pooled = encode(TOKENS)
    swapped = encode(TOKENS[::-1])
    np.testing.assert_allclose(swapped[0], features[::-1], atol=1e-6)
    np.testing.assert_allclose(pooled[0], features[0, :4].mean(axis=0), atol=1e-6)
    longer = encode(np.pad(TOKENS, ((0, 0), (0, 3))))
    np.testing.assert_allclose(longer[0][:, :3], features[:, :3], atol=1e-6)
    np.testing.assert_allclose(longer[1], pooled, atol=1e-6)


def test_features_depend_on_distances_and_order_and_not_on_places(encode):
    features, _ = encode(TOKENS)
    moved, _ = encode(np.roll(TOKENS, 2, axis=1))  # padding before the text, too
    np.testing.assert_allclose(moved[0, 2:], features[0, :4], atol=1e-6)
    swapped, _ = encode(TOKENS[:, [1, 0, 2, 3, 4, 5]])
    assert np.abs(swapped[0, [1, 0]] - features[0, :2]).max() > 0.01


def test_a_folder_gives_back_what_was_written_in_one_file_or_several(tmp_path, params):
    for name, options in {"one": {}, "several": {"shard": 200}, "half": {"dtype": "bfloat16"}}.items():
        folder = tmp_path / name
        save_t5(folder, ENCODER, params, **options)
        encoder, found = load_t5(folder, length=10)
        assert encoder == ENCODER
        close = 0.01 if name == "half" else 0
        jax.tree.map(lambda a, b, close=close: np.testing.assert_allclose(a, b, atol=close * 3), found, params)
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 3
    given, memory = published(f"t5_encoder:{tmp_path / 'several'}")
    jax.tree.map(np.testing.assert_array_equal, given, params)
    assert memory is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "umt5"}, "'umt5'"),
        ({"feed_forward_proj": "gated-silu"}, "'gated-silu' of the config has no equivalent"),
        ({"num_layers": 3}, "block.2"),
        ({"num_layers": 1}, "block.1"),
        ({"d_model": 9}, "asks for"),
        ({"d_model": "8"}, "d_model"),
        ({"relative_attention_num_buckets": 6}, "multiple of 4"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_by_name(tmp_path, params, change, says):
    save_t5(tmp_path, ENCODER, params)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(UserError, match=says) as caught:
        load_t5(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_without_weights_or_of_params_of_another_network_is_refused(tmp_path, params):
    with pytest.raises(UserError, match="config.json"):
        load_t5(tmp_path)
    with pytest.raises(UserError, match="params lack block_1/mlp_gate/kernel"):
        layer = {k: v for k, v in params["block_1"].items() if k != "mlp_gate"}
        save_t5(tmp_path, ENCODER, {**params, "block_1": layer})


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (np.zeros((1, 11), np.int32), "10 tokens at most, not 11"),
        (np.zeros((1, 4), np.float32), "token ids"),
        (np.zeros(4, np.int32), "token ids"),
    ],
)
def test_what_is_no_text_is_refused(params, tokens, says):
    with pytest.raises(UserError, match=says):
        ENCODER.apply({"params": params}, tokens)
