"""Adapters: what the flag says, and what they do to models that have grafts of their own."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny_latents

from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.grafts.base import Graft
from jaxgen.methods.grafts.leaves import Leaves
from jaxgen.methods.grafts.low_rank import LowRank
from jaxgen.methods.grafts.token_rows import TokenRows
from jaxgen.methods.tuned import Tuned
from jaxgen.sampling.grafts.adapted import adapted
from jaxgen.sampling.grafts.requests import Adapter, read_adapter
from jaxgen.sampling.grafts.written import check_grafts


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("lora:runs/a.safetensors", Adapter("lora", "runs/a.safetensors")),
        ("lora:runs/a.safetensors:0.5", Adapter("lora", "runs/a.safetensors", scale=0.5)),
        ("lora:runs/a:-1", Adapter("lora", "runs/a", scale=-1.0)),
        ("lora:gs://store/a", Adapter("lora", "gs://store/a")),
        ("embedding:a.safetensors", Adapter("embedding", "a.safetensors")),
        ("embedding:a.safetensors:<toy>", Adapter("embedding", "a.safetensors", word="<toy>")),
        ("motion:runs/a", Adapter("motion", "runs/a")),
        ("motion:runs/a:8", Adapter("motion", "runs/a", frames=8)),
        ("embedding:gs://store/a.safetensors", Adapter("embedding", "gs://store/a.safetensors")),
    ],
)
def test_what_the_flag_says(text, wanted):
    assert read_adapter(text) == wanted


@pytest.mark.parametrize("text", ["", "lora", "lora:", "embeddings:x", "x.safetensors"])
def test_what_the_flag_cannot_say(text):
    with pytest.raises(UserError, match=r"--adapter=.*(lora:FILE\[:scale\]|embedding:FILE)"):
        read_adapter(text)


def test_a_word_with_a_space_is_refused_with_the_flags():
    with pytest.raises(UserError, match="--adapter=embedding:a.safetensors:cat toy: the word 'cat toy' has a space"):
        read_adapter("embedding:a.safetensors:cat toy")


@pytest.fixture(scope="module")
def model():
    """A model that reads texts of a vocabulary of nine, with weights that are all drawn."""
    method, batch = tiny_latents.make(text=True), tiny_latents.batch()
    params = {"autoencoder": {"weight": np.float32(1)}}
    params |= method.init(jax.random.key(0), batch, 0, params, {}, tiny_latents.MOMENTS)[0]
    chance = np.random.default_rng(0)
    return method, jax.tree.map(lambda x: x + 0.1 * chance.standard_normal(x.shape).astype(np.float32), params), batch


@pytest.fixture
def files(model, tmp_path):
    """Two adapters, an update of one layer at half its size and a word of two vectors; and that update's product."""
    chance = np.random.default_rng(1)
    stem, width = "denoiser.up_0_attention_1.block_0.cross_attention.key", 8
    update = {
        f"{stem}.lora_{x}.weight": chance.standard_normal(s).astype(np.float32)
        for x, s in zip("AB", ((2, width), (width, 2)), strict=True)
    }
    safetensors.numpy.save_file(update, tmp_path / "lora.safetensors")
    safetensors.numpy.save_file(
        {"<toy>": chance.standard_normal((2, 8)).astype(np.float32)}, tmp_path / "toy.safetensors"
    )
    return (
        read_adapter(f"lora:{tmp_path / 'lora.safetensors'}:0.5"),
        read_adapter(f"embedding:{tmp_path / 'toy.safetensors'}"),
        update[f"{stem}.lora_A.weight"].T @ update[f"{stem}.lora_B.weight"].T,
    )


def drawn(method, params, batch):
    model = Model(params=params, memory=tiny_latents.MOMENTS)
    return jax.jit(method.sample)(model, jax.random.split(jax.random.key(1), 3), batch)


@pytest.mark.slow
def test_an_adapter_is_added_to_its_layer_in_any_order_of_the_flags(model, files):
    method, params, batch = model
    lora, word, update = files
    changed, on, words = adapted(method, params, [word, lora])
    assert words == {"<toy>": (9, 10)} and type(changed) is type(method) and changed.text.vocabulary == 11
    by_hand = jax.tree.map(lambda x: x, params)
    layer = by_hand["denoiser"]["up_0_attention_1"]["block_0"]["cross_attention"]["key"]
    layer["kernel"] = layer["kernel"] + 0.5 * update
    np.testing.assert_allclose(drawn(changed, on, batch), drawn(method, by_hand, batch), atol=1e-4)
    assert np.abs(drawn(changed, on, batch) - drawn(method, params, batch)).max() > 1e-3
    again, same, _ = adapted(method, params, [lora, word])
    new = {**batch, "tokens": batch["tokens"].at[0, 0].set(10)}
    np.testing.assert_array_equal(drawn(again, same, new), drawn(changed, on, new))
    assert np.abs(drawn(changed, on, new) - drawn(changed, on, batch)).max() > 1e-4


@pytest.mark.slow
def test_grafts_of_the_model_keep_their_words(model, files):
    method, params, batch = model
    tuned = Tuned(method, {"zebra": TokenRows((4,), word="<zebra>"), "lora": LowRank(rank=1)})
    learned, _ = tuned.init(jax.random.key(2), batch, 0, params, {}, tiny_latents.MOMENTS)
    changed, on, words = adapted(tuned, {**params, **learned}, files[:2])
    assert words == {"<toy>": (10, 11)} and changed.words == {"<zebra>": (9,), "<toy>": (10, 11)}
    alone, of_alone, _ = adapted(method, params, files[:1])
    zebra = {
        **batch,
        "tokens": batch["tokens"].at[0, 0].set(9),
    }  # its row is a copy of that of 4, and tuning has not begun
    np.testing.assert_allclose(drawn(changed, on, zebra), drawn(alone, of_alone, batch), atol=1e-5)
    again, _, words = adapted(tuned, {**params, **learned}, [*files[:2], dataclasses.replace(files[1], word="<other>")])
    assert words == {"<toy>": (10, 11), "<other>": (12, 13)}


def test_adapters_that_do_not_fit_are_one_sentence(model, files, tmp_path):
    method, params, _ = model
    plain, (_, word, _) = tiny_latents.make(), files
    other = {group: params[group] for group in ("denoiser", "autoencoder")}
    with pytest.raises(UserError, match="--adapter=embedding.*this model reads no texts"):
        adapted(plain, other, [word])
    with pytest.raises(UserError, match="'<toy>' of the graft .* is another graft's, too"):
        adapted(method, params, [word, word])
    safetensors.numpy.save_file({"<wide>": np.zeros(9, np.float32)}, tmp_path / "wide.safetensors")
    with pytest.raises(UserError, match="wide.safetensors has vectors of 9 features, and the text encoder's have 8"):
        adapted(method, params, [read_adapter(f"embedding:{tmp_path / 'wide.safetensors'}")])
    stem = "denoiser.up_0_attention_1.block_0.cross_attention.kye"
    safetensors.numpy.save_file({f"{stem}.lora_A.weight": np.zeros((1, 8), np.float32)}, tmp_path / "typo.safetensors")
    with pytest.raises(UserError, match="cross_attention.kye', which the model does not have; did you mean .*key"):
        adapted(method, params, [read_adapter(f"lora:{tmp_path / 'typo.safetensors'}")])
    stem = stem.replace("kye", "key")
    wide = {
        f"{stem}.lora_A.weight": np.zeros((1, 9), np.float32),
        f"{stem}.lora_B.weight": np.zeros((8, 1), np.float32),
    }
    safetensors.numpy.save_file(wide, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="the layer is 8x8: it belongs to another model"):
        adapted(method, params, [read_adapter(f"lora:{tmp_path / 'other.safetensors'}")])


class Odd(Graft):
    """A graft that nothing outside of jaxgen knows."""


@pytest.mark.parametrize(
    ("grafts", "merge", "told"),
    [
        ({"all": Leaves(group="text")}, False, "only those of the denoiser's attentions .* give --merge"),
        ({"mute": TokenRows((1,))}, False, r"without a name.* set config\.method\.grafts\.mute\.word"),
        ({"odd": Odd()}, True, "'odd' is of the class Odd, which has no file format"),
        ({"token": TokenRows((1,), word="<toy>")}, True, "--merge has no use"),
    ],
)
def test_grafts_without_a_form_of_their_own_are_not_written(grafts, merge, told):
    with pytest.raises(UserError, match=told):
        check_grafts(grafts, merge)
    check_grafts({"kv": Leaves(), "token": TokenRows((1,), word="<toy>"), "lora": LowRank()}, True)
