"""unCLIP's prior against diffusers' PriorTransformer with random weights: equal numbers, and folders both ways."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
import diffusers  # noqa: E402

from jaxgen.errors import UserError  # noqa: E402
from jaxgen.interop.unclip.prior import (  # noqa: E402
    Statistics,
    load_prior,
    prior_config,
    prior_from_diffusers,
    prior_options,
    save_prior,
)
from jaxgen.networks.pretrained.prior_transformer import PriorTransformer  # noqa: E402

pytestmark = pytest.mark.parity

BASE = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "embedding_dim": 6, "num_embeddings": 5}
CONFIGS = {
    "defaults": {},
    "another width of the text's embedding, normalised": {
        "embedding_proj_dim": 10,
        "embedding_proj_norm_type": "layer",
        "num_layers": 3,
    },
}


@functools.cache
def peer(name: str) -> diffusers.PriorTransformer:
    """A PriorTransformer whose every weight, also those that start at zero, is random."""
    torch.manual_seed(0)
    model = diffusers.PriorTransformer(**{**BASE, **CONFIGS[name]}).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.2)
    return model


def state_of(model) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in model.state_dict().items()}


def inputs(config) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(1)
    return {
        "x": chance.standard_normal((3, 6), np.float32),
        "time": np.asarray([0.0, 37.0, 999.0], np.float32),
        "context": chance.standard_normal((3, 5, 6), np.float32),
        "vector": chance.standard_normal((3, config["embedding_proj_dim"] or 6), np.float32),
        "context_mask": np.asarray([[1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]], np.int32),
    }


def theirs(model, given) -> np.ndarray:
    given = {key: torch.from_numpy(value) for key, value in given.items()}
    with torch.no_grad():
        found = model(given["x"], given["time"], given["vector"], given["context"], given["context_mask"].bool())
    return found.predicted_image_embedding.numpy()


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_equal(name):
    model = peer(name)
    prior, params, _ = prior_from_diffusers(state_of(model), dict(model.config))
    given = inputs(model.config)
    expected = theirs(model, given)
    run = jax.jit(lambda params, given: prior.apply({"params": params}, **given))
    with jax.default_matmul_precision("highest"):
        found = run(params, given)
        # what the mask hides has no say
        hidden = {**given, "context": np.where(given["context_mask"][..., None] == 1, given["context"], 9.0)}
        same = run(params, {key: np.asarray(value, np.float32) for key, value in hidden.items()})
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(same, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_folders_are_read_by_either_side(name, tmp_path):
    model = peer(name)
    model.save_pretrained(tmp_path / "theirs")
    prior, params, statistics = load_prior(tmp_path / "theirs")
    np.testing.assert_array_equal(statistics.mean, model.clip_mean[0].detach().numpy())
    np.testing.assert_array_equal(statistics.std, model.clip_std[0].detach().numpy())
    save_prior(tmp_path / "ours", prior, params, statistics)
    back = diffusers.PriorTransformer.from_pretrained(tmp_path / "ours").eval()
    assert back.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key
    given = inputs(model.config)
    np.testing.assert_array_equal(theirs(back, given), theirs(model, given))


def test_fresh_weights_travel_there_and_back(tmp_path):
    prior = PriorTransformer(outputs=6, context_dim=6, vector_dim=6, length=4, width=16, depth=1, heads=4)
    given = inputs(peer("defaults").config)
    given |= {name: given[name][:, :4] for name in ("context", "context_mask")}
    params = jax.device_get(jax.jit(prior.init)(jax.random.key(0), **given)["params"])
    params["out"]["kernel"] = np.random.default_rng(0).standard_normal((16, 6), np.float32)
    save_prior(tmp_path, prior, params, Statistics(np.zeros(6, np.float32), np.full(6, 6**-0.5, np.float32)))
    model = diffusers.PriorTransformer.from_pretrained(tmp_path).eval()
    with jax.default_matmul_precision("highest"):
        found = prior.apply({"params": params}, **given)
    np.testing.assert_allclose(found, theirs(model, given), atol=1e-5)
    np.testing.assert_allclose(model.post_process_latents(torch.ones(1, 6)).detach(), np.full((1, 6), 6**-0.5))
    same, back, _ = load_prior(tmp_path)
    assert same == prior
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_silent_configs_mean_what_the_peer_means():
    small = {"num_layers": 1, "num_attention_heads": 1, "attention_head_dim": 8}
    stated = {key: value for key, value in diffusers.PriorTransformer(**small).config.items() if key[0] != "_"}
    assert prior_options(small) == prior_options(stated)
    assert prior_options(prior_config(PriorTransformer(**prior_options(small)))) == prior_options(small)


@pytest.mark.parametrize(
    "change",
    [
        {"time_embed_act_fn": "gelu"},
        {"norm_in_type": "layer"},
        {"encoder_hid_proj_type": None},
        {"added_emb_type": None},
        {"additional_embeddings": 0},
        {"time_embed_dim": 9},
        {"clip_embed_dim": 9},
        {"another": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_configs_without_an_equivalent_are_refused(change):
    with pytest.raises(UserError, match=next(iter(change))):
        prior_options({**BASE, **change})


def test_states_that_do_not_fit_are_refused(tmp_path):
    model = peer("defaults")
    state, config = state_of(model), dict(model.config)
    for name in ("norm_out.bias", "clip_std", "prd_embedding"):
        with pytest.raises(UserError, match=name):
            prior_from_diffusers({key: value for key, value in state.items() if key != name}, config)
    with pytest.raises(UserError, match=r"'positional_embedding' is of shape \(1, 9, 16\), .* \(1, 10, 16\)"):
        prior_from_diffusers(state, {**config, "num_embeddings": 6})
    with pytest.raises(UserError, match=r"has 'more\.weight'"):
        prior_from_diffusers({**state, "more.weight": np.zeros(3, np.float32)}, config)
    wide = dataclasses.replace(PriorTransformer(**prior_options(BASE)), context_dim=9)
    with pytest.raises(UserError, match="context_dim=9 beside outputs=6"):
        save_prior(tmp_path, wide, {})
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"There is no file .*config\.json, which the folder of a PriorTransformer"):
        load_prior(tmp_path)
