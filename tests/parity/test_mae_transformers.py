"""The masked autoencoder against transformers' `ViTMAEForPreTraining`, of random weights and the same masks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and transformers: install the extra 'parity'")
import transformers  # noqa: E402

from jaxgen.methods.autoencoders.mae import MAE  # noqa: E402
from jaxgen.networks.mae import MAEDecoder, MAEEncoder  # noqa: E402

pytestmark = pytest.mark.parity

SIZE, PATCH, EPS = 16, 4, 1e-12
LAYERS = {
    "norm_in": "layernorm_before",
    "norm_mlp": "layernorm_after",
    "mlp/in": "mlp.fc1",
    "mlp/out": "mlp.fc2",
    "attention/query": "attention.q_proj",
    "attention/key": "attention.k_proj",
    "attention/value": "attention.v_proj",
    "attention/out": "attention.o_proj",
}


def peer(normalise):
    config = transformers.ViTMAEConfig(
        image_size=SIZE, patch_size=PATCH, num_channels=3, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=40, decoder_hidden_size=16, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=32, mask_ratio=0.75, norm_pix_loss=normalise, layer_norm_eps=EPS,
    )  # fmt: skip
    model = transformers.ViTMAEForPreTraining(config)
    # the constructor of transformers 5 leaves the fixed positions at zero, which files of weights overwrite
    model.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
    model.vit.embeddings.initialize_weights()
    model.decoder.initialize_weights((SIZE // PATCH) ** 2)
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "position_embeddings" not in name and "pos_embed" not in name:
                weight += torch.randn(weight.shape, generator=chance) * 0.15
    return model.eval()


def layer(weights, name):
    """A linear layer or a normalisation of torch's, in flax's names."""
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return {"scale": weight, "bias": bias} if weight.ndim == 1 else {"kernel": weight.T, "bias": bias}


def blocks(weights, prefix, count):
    found = {}
    for i in range(count):
        block = found.setdefault(f"block_{i}", {})
        for ours, theirs in LAYERS.items():
            *room, last = ours.split("/")
            place = block.setdefault(room[0], {}) if room else block
            place[last] = layer(weights, f"{prefix}.{i}.{theirs}")
    return found


def converted(model):
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    conv = weights["vit.embeddings.patch_embeddings.projection.weight"]  # [D, C, p, p]
    bias = weights["vit.embeddings.patch_embeddings.projection.bias"]
    encoder = {
        "patch_in": {"kernel": conv.transpose(2, 3, 1, 0).reshape(-1, len(conv)), "bias": bias},
        "class_token": weights["vit.embeddings.cls_token"],
        **blocks(weights, "vit.layers", 2),
        "norm_out": layer(weights, "vit.layernorm"),
    }
    decoder = {
        "token_in": layer(weights, "decoder.decoder_embed"),
        "mask_token": weights["decoder.mask_token"],
        **blocks(weights, "decoder.decoder_layers", 2),
        "norm_out": layer(weights, "decoder.decoder_norm"),
        "patch_out": layer(weights, "decoder.decoder_pred"),
    }
    return jax.tree.map(jnp.asarray, {"encoder": encoder, "decoder": decoder})


@pytest.mark.parametrize("normalise", [True, False])
def test_prediction_loss_and_features_are_those_of_transformers(normalise):
    model = peer(normalise)
    method = MAE(
        MAEEncoder(PATCH, 24, 2, 3, 40 / 24, norm_eps=EPS), MAEDecoder(16, 2, 2, 2.0, norm_eps=EPS), (SIZE, SIZE, 3),
        normalise=normalise,
    )  # fmt: skip
    chance = np.random.default_rng(0)
    image = chance.normal(size=(3, SIZE, SIZE, 3)).astype(np.float32)
    noise = chance.uniform(size=(3, method.patches)).astype(np.float32)
    pixels = torch.from_numpy(image.transpose(0, 3, 1, 2))
    with torch.no_grad():
        theirs = model(pixel_values=pixels, noise=torch.from_numpy(noise))
        model.vit.config.mask_ratio = 0.0
        theirs_all = model.vit(pixel_values=pixels, noise=torch.arange(method.patches)[None].expand(3, -1).float())
    params = converted(model)
    masking = method.masking(jnp.asarray(noise))
    np.testing.assert_array_equal(masking.missing, theirs.mask.numpy() > 0)
    predicted = method.predict(params, jnp.asarray(image), masking)
    np.testing.assert_allclose(predicted, theirs.logits.numpy(), atol=1e-4)
    loss = method.errors(predicted, jnp.asarray(image), masking).mean()
    np.testing.assert_allclose(loss, float(theirs.loss), rtol=1e-4)
    tokens = method.encode(params, jnp.asarray(image))
    np.testing.assert_allclose(tokens, theirs_all.last_hidden_state.numpy()[:, 1:], atol=1e-4)
