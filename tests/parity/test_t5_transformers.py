"""The T5 encoder against transformers with random weights: both kinds of feed-forward layer, masks, files both ways."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and transformers: install the extra 'parity'")
import transformers  # noqa: E402

from jaxgen.interop.text_encoders import t5 as interop  # noqa: E402
from jaxgen.networks.pretrained.t5 import buckets_of  # noqa: E402

pytestmark = pytest.mark.parity

SIZES = {
    "vocab_size": 40,
    "d_model": 24,
    "d_kv": 6,  # the heads together are narrower than the model, as in t5-v1_1-small
    "d_ff": 20,
    "num_layers": 3,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 10,
}


def model_of(layer: str, whole: bool = False):
    """A T5 whose random weights are so large that each part matters."""
    torch.manual_seed(0)
    config = transformers.T5Config(**SIZES, feed_forward_proj=layer, tie_word_embeddings=layer == "relu")
    model = (transformers.T5ForConditionalGeneration if whole else transformers.T5EncoderModel)(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight += torch.randn(weight.shape) * (0.3 if weight.ndim == 1 else 0.15)
    return model.eval()


def tokens_and_mask():
    chance = np.random.default_rng(1)
    tokens = chance.integers(1, 40, (4, 20)).astype(np.int32)
    lengths = np.array([20, 13, 5, 1])
    mask = np.arange(20) < lengths[:, None]
    return np.where(mask, tokens, 0), mask


def features_of(model, tokens, mask):
    with torch.no_grad():
        out = model(input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long())
    return out.last_hidden_state.numpy()


@pytest.mark.parametrize("layer", ["relu", "gated-gelu"])
def test_features_are_those_of_transformers(layer):
    model, (tokens, mask) = model_of(layer), tokens_and_mask()
    state = {name: array.numpy() for name, array in model.state_dict().items()}
    encoder, params = interop.t5_from_transformers(state, model.config.to_dict())
    found, pooled = jax.jit(encoder.apply)({"params": params}, jnp.asarray(tokens), jnp.asarray(mask))
    wanted = features_of(model, tokens, mask)
    np.testing.assert_allclose(np.asarray(found)[mask], wanted[mask], atol=1e-4, rtol=1e-4)
    means = [row[seen].mean(axis=0) for row, seen in zip(wanted, mask, strict=True)]
    np.testing.assert_allclose(pooled, means, atol=1e-4, rtol=1e-4)
    without = features_of(model, tokens, np.ones_like(mask))
    np.testing.assert_allclose(encoder.apply({"params": params}, tokens)[0], without, atol=1e-4, rtol=1e-4)
    assert np.abs(without - wanted)[mask].max() > 0.1  # the mask matters


@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (8, 10)])
def test_distances_fall_into_the_buckets_of_transformers(buckets, farthest):
    attention = transformers.models.t5.modeling_t5.T5Attention
    away = torch.arange(300)[None, :] - torch.arange(300)[:, None]
    wanted = attention._relative_position_bucket(away, True, buckets, farthest)
    np.testing.assert_array_equal(buckets_of(300, buckets, farthest), wanted.numpy())


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("shard", ["50GB", "4KB"])
def test_folders_of_transformers_are_read(tmp_path, whole, shard):
    model, (tokens, mask) = model_of("gated-gelu", whole), tokens_and_mask()
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1 if shard == "50GB" else len(list(tmp_path.glob("*"))) > 4
    encoder, params = interop.load_t5(tmp_path)
    wanted = features_of(model.encoder, tokens, mask)
    found = encoder.apply({"params": params}, tokens, mask)[0]
    np.testing.assert_allclose(np.asarray(found)[mask], wanted[mask], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layer", ["relu", "gated-gelu"])
@pytest.mark.parametrize("shard", [0, 4000])
def test_folders_that_are_written_are_read_by_transformers(tmp_path, layer, shard):
    state = {name: array.numpy() for name, array in model_of(layer).state_dict().items()}
    encoder, params = interop.t5_from_transformers(state, {**SIZES, "feed_forward_proj": layer})
    interop.save_t5(tmp_path, encoder, params, shard=shard)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1 if not shard else len(list(tmp_path.glob("*"))) > 4
    model, report = transformers.T5EncoderModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    tokens, mask = tokens_and_mask()
    wanted = features_of(model.eval(), tokens, mask)
    found = encoder.apply({"params": params}, tokens, mask)[0]
    np.testing.assert_allclose(np.asarray(found)[mask], wanted[mask], atol=1e-4, rtol=1e-4)
