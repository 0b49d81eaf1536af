"""Files of low-rank updates in the naming of each program that writes them, and of the vectors of new words."""

from __future__ import annotations

import json
import logging
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from jaxgen.errors import UserError
from jaxgen.interop.adapters.learned_embeds import read_embeds, write_embeds
from jaxgen.interop.adapters.lora import Names, Update, lora_file, names_of, read_lora, write_lora
from jaxgen.interop.diffusers_files import read_metadata
from jaxgen.networks.dit import DiT
from jaxgen.networks.pretrained.clip import TextTower
from jaxgen.networks.unet import UNet

QUERY, OUT, IN = "middle/query", "middle/out", "middle/in"
LAYERS = {QUERY: "mid_block.attn1.to_q", OUT: "mid_block.attn1.to_out.0", IN: "mid_block.proj_in"}
TEXT = {"block_0/query": "text_model.encoder.layers.0.self_attn.q_proj"}
NAMES = {
    "denoiser": Names("unet", LAYERS, frozenset({IN})),
    "text": Names("text_encoder", TEXT),
    "autoencoder": Names("autoencoder", {"encoder/query": "encoder.query"}),
}
CHANCE = np.random.default_rng(0)
A, B = (CHANCE.standard_normal(shape).astype(np.float32) for shape in ((3, 8), (6, 3)))  # as files have them: r is 3


def write(path, tensors, metadata=None):
    path.parent.mkdir(exist_ok=True)
    safetensors.numpy.save_file({key: np.ascontiguousarray(x) for key, x in tensors.items()}, path, metadata)
    return path


def factor(update):
    """How much larger the product of an update's matrices is than that of A and B."""
    product = B.astype(np.float64) @ A
    np.testing.assert_allclose(update.a.T, A, rtol=1e-6)
    found = (update.b.T.astype(np.float64) @ update.a.T) / product
    np.testing.assert_allclose(found, found.mean(), rtol=1e-4)
    return found.mean()


# {who writes it: (stem of a key, group, path here)}; then what stands behind the stem for A and for B
STEMS = {
    "diffusers": ("unet.mid_block.attn1.to_q", "denoiser", QUERY, ".lora_A.weight", ".lora_B.weight"),
    "scripts of diffusers": ("unet.mid_block.attn1.to_out.0", "denoiser", OUT, ".lora.down.weight", ".lora.up.weight"),
    "old scripts": ("unet.mid_block.attn1.processor.to_out", "denoiser", OUT, "_lora.down.weight", "_lora.up.weight"),
    "old scripts, one network": (
        "mid_block.attn1.processor.to_q",
        "denoiser",
        QUERY,
        "_lora.down.weight",
        "_lora.up.weight",
    ),
    "text of scripts": (
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
        "text",
        "block_0/query",
        ".lora_linear_layer.down.weight",
        ".lora_linear_layer.up.weight",
    ),
    "text of transformers 5": (
        "text_encoder.encoder.layers.0.self_attn.q_proj",
        "text",
        "block_0/query",
        ".lora_A.weight",
        ".lora_B.weight",
    ),
    "peft": (
        "base_model.model.mid_block.attn1.to_q",
        "denoiser",
        QUERY,
        ".lora_A.default.weight",
        ".lora_B.default.weight",
    ),
    "kohya": ("lora_unet_mid_block_attn1_to_out_0", "denoiser", OUT, ".lora_down.weight", ".lora_up.weight"),
    "text of kohya": (
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
        "text",
        "block_0/query",
        ".lora_down.weight",
        ".lora_up.weight",
    ),
    "jaxgen": ("autoencoder.encoder.query", "autoencoder", "encoder/query", ".lora_A.weight", ".lora_B.weight"),
}


@pytest.mark.parametrize("who", STEMS)
def test_each_programs_names_are_read(who, tmp_path, caplog):
    stem, group, path, of_a, of_b = STEMS[who]
    file = write(tmp_path / "f.safetensors", {stem + of_a: A, stem + of_b: B})
    with caplog.at_level(logging.INFO, "jaxgen"):
        found = read_lora(file, NAMES)
    assert {group: [*layers] for group, layers in found.items()} == {group: [path]}
    assert factor(found[group][path]) == pytest.approx(1)
    assert "does not say alpha" in caplog.text
    alpha = write(tmp_path / "g.safetensors", {stem + of_a: A, stem + of_b: B, f"{stem}.alpha": np.float32(1.5)})
    assert factor(read_lora(alpha, NAMES)[group][path]) == pytest.approx(0.5)


def test_alpha_is_what_the_metadata_say_of_each_network(tmp_path):
    tensors = {
        f"{stem}.lora_{x}.weight": value
        for stem in (
            "unet.mid_block.attn1.to_q",
            "unet.mid_block.attn1.to_out.0",
            "text_encoder.encoder.layers.0.self_attn.q_proj",
        )
        for x, value in (("A", A), ("B", B))
    }
    config = {
        "unet.r": 3,
        "unet.lora_alpha": 6,
        "unet.alpha_pattern": {"attn1.to_out.0": 12},
        "unet.use_rslora": False,
        "text_encoder.lora_alpha": 3.0,
        "text_encoder.use_rslora": True,
        "text_encoder.target_modules": ["q_proj"],
    }
    file = write(tmp_path / "f.safetensors", tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(config)})
    found = read_lora(file, NAMES)
    assert factor(found["denoiser"][QUERY]) == pytest.approx(2)
    assert factor(found["denoiser"][OUT]) == pytest.approx(4)
    assert factor(found["text"]["block_0/query"]) == pytest.approx(3**0.5)


def test_alpha_of_a_folder_of_peft_is_in_the_config_beside_it(tmp_path):
    stem = "base_model.model.mid_block.attn1.to_q"
    write(tmp_path / "adapter_model.safetensors", {f"{stem}.lora_A.weight": A, f"{stem}.lora_B.weight": B})
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 9, "peft_type": "LORA"}))
    file = lora_file(tmp_path, "--adapter")
    assert factor(read_lora(file, NAMES)["denoiser"][QUERY]) == pytest.approx(3)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 9, "use_dora": True}))
    with pytest.raises(UserError, match="use_dora is set, and DoRA is not read"):
        read_lora(file, NAMES)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": "9"}))
    with pytest.raises(UserError, match="adapter_config.json.*'lora_alpha'"):
        read_lora(file, NAMES)


def test_what_is_written_is_read_again_to_the_bit(tmp_path, caplog):
    updates = {"denoiser": {QUERY: Update(A.T.copy(), B.T.copy()), IN: Update(A.T[:, :2].copy(), B.T[:2].copy())}}
    updates["text"] = {"block_0/query": Update(A.T[:, :1].copy(), B.T[:1].copy())}
    write_lora(tmp_path / "f.safetensors", updates, NAMES)
    with caplog.at_level(logging.INFO, "jaxgen"):
        found = read_lora(tmp_path / "f.safetensors", NAMES)
    assert found.keys() == updates.keys()
    for group, layers in updates.items():
        for path, update in layers.items():
            np.testing.assert_array_equal(found[group][path].a, update.a)
            np.testing.assert_array_equal(found[group][path].b, update.b)
    told = read_metadata(tmp_path / "f.safetensors")
    assert told["format"] == "pt" and json.loads(told["lora_adapter_metadata"])["text_encoder.lora_alpha"] == 1
    assert "does not say alpha" not in caplog.text
    tensors = safetensors.numpy.load_file(tmp_path / "f.safetensors")
    assert tensors["unet.mid_block.proj_in.lora_A.weight"].shape == (2, 8, 1, 1)  # a convolution of one pixel there
    with pytest.raises(UserError, match="has no layer for 'other'"):
        write_lora(tmp_path / "g.safetensors", {"text": {"other": updates["text"]["block_0/query"]}}, NAMES)


KEY = "unet.mid_block.attn1.to_q"


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({f"{KEY}.lora_A.weight": A}, "lacks one of its two matrices"),
        ({f"{KEY}.lora_A.weight": A, f"{KEY}.lora_B.weight": B[:, :2]}, "have ranks 3 and 2"),
        (
            {"unet.mid_block.attn1.to_x.lora_A.weight": A},
            "'unet.mid_block.attn1.to_x', which the model does not",
        ),
        ({"lora_unet_input_blocks_1.lora_down.weight": A}, "'lora_unet_input_blocks_1', which the model does not"),
        ({f"{KEY}.lora_magnitude_vector": A}, "no part of a low-rank update: DoRA"),
        ({f"{KEY}.hada_w1_a": A}, "no part of a low-rank update"),
        ({f"{KEY}.lora_A.weight": A.reshape(3, 2, 2, 2), f"{KEY}.lora_B.weight": B}, "an update of a convolution"),
        ({f"{KEY}.lora_A.weight": A.astype(np.int8), f"{KEY}.lora_B.weight": B}, "no weights as they are"),
        ({f"{KEY}.lora_A.weight": A, f"{KEY}.lora_B.weight": B, f"{KEY}.alpha": A}, "alpha is one number"),
        ({}, "holds no tensors"),
    ],
)
def test_files_that_are_no_update_of_the_model_are_one_sentence(tensors, told, tmp_path):
    with pytest.raises(UserError, match=told):
        read_lora(write(tmp_path / "f.safetensors", tensors), NAMES)


def test_alpha_patterns_that_are_expressions_are_refused(tmp_path):
    metadata = {"lora_adapter_metadata": json.dumps({"unet.alpha_pattern": {"attn1.*": 4}})}
    file = write(tmp_path / "f.safetensors", {f"{KEY}.lora_A.weight": A, f"{KEY}.lora_B.weight": B}, metadata)
    with pytest.raises(UserError, match="alpha_pattern has 'attn1"):
        read_lora(file, NAMES)


@pytest.mark.parametrize("read", [lora_file, read_embeds])
def test_pickles_and_missing_files_are_refused(read, tmp_path):
    (tmp_path / "old.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(UserError, match=r"--adapter=.*old\.bin is a pickle, which can run any program.* safetensors"):
        read(tmp_path / "old.bin", "--adapter")
    with pytest.raises(UserError, match="there is no such file"):
        read(tmp_path / "gone.safetensors", "--adapter")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="--adapter=.*safetensors"):
        read(tmp_path / "empty", "--adapter")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_that_is_called_safetensors_is_refused_as_a_pickle(zipped, tmp_path):
    """What `torch.save` writes is a pickle, or a zip file with one in it; neither is opened."""
    place, content = tmp_path / "f.safetensors", pickle.dumps({"weight": [0.0] * 9})
    if zipped:
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    else:
        place.write_bytes(content)
    with pytest.raises(UserError, match="f.safetensors is a pickle, whatever its name says"):
        read_lora(place, NAMES)
    with pytest.raises(UserError, match="f.safetensors is a pickle, whatever its name says"):
        read_embeds(place, "--adapter")


def test_layers_of_stable_diffusion_have_diffusers_names_and_others_their_own():
    unet = UNet(4, 16, (1, 2), 1, attention_levels=(0,), heads=2, context_dim=16, norm_groups=8)
    there = names_of("denoiser", unet, (), linear=False)
    path = "up_0_attention_1/block_0/cross_attention/out"
    assert there.layers[path] == "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0"
    assert "middle_attention/in" in there.pointwise and not names_of("denoiser", unet, ()).pointwise
    text = names_of("text", TextTower(depth=2), ())
    assert text.layers["block_1/out"] == "text_model.encoder.layers.1.self_attn.out_proj"
    own = names_of("denoiser", DiT(out_channels=1, patch_size=2, width=16, depth=2, heads=2), ["block_0/mlp/in"])
    assert own == Names("denoiser", {"block_0/mlp/in": "block_0.mlp.in"})


@pytest.mark.parametrize("count", [1, 3])
def test_vectors_of_a_word_are_written_and_read(count, tmp_path):
    rows = CHANCE.standard_normal((count, 5)).astype(np.float32)
    write_embeds(tmp_path / "learned_embeds.safetensors", {"<cat-toy>": rows})
    (stored,) = safetensors.numpy.load_file(tmp_path / "learned_embeds.safetensors").values()
    assert stored.shape == ((5,) if count == 1 else (count, 5))
    word, found = read_embeds(tmp_path, "--adapter")
    assert word == "<cat-toy>"
    np.testing.assert_array_equal(found, rows)


def test_vectors_without_a_word_have_that_of_the_file_and_others_are_refused(tmp_path):
    rows = CHANCE.standard_normal((2, 5)).astype(np.float32)
    word, found = read_embeds(write(tmp_path / "toy.safetensors", {"emb_params": rows}), "--adapter")
    assert word == "toy" and found.shape == (2, 5)
    with pytest.raises(UserError, match="holds 2 tensors"):
        read_embeds(write(tmp_path / "two.safetensors", {"a": rows, "b": rows}), "--adapter")
    with pytest.raises(UserError, match=r"'a' has shape \(1, 2, 5\)"):
        read_embeds(write(tmp_path / "deep.safetensors", {"a": rows[None]}), "--adapter")
    with pytest.raises(UserError, match="int32"):
        read_embeds(write(tmp_path / "whole.safetensors", {"a": rows.astype(np.int32)}), "--adapter")
