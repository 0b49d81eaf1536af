"""Custom Diffusion: files of diffusers are read here, ours there, with equal predictions."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny
import tiny_pipeline

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
import diffusers  # noqa: E402
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor  # noqa: E402

from jaxgen.config import files as config_files  # noqa: E402
from jaxgen.errors import UserError  # noqa: E402
from jaxgen.interop.adapters.custom_diffusion import (  # noqa: E402
    FILE,
    read_custom_diffusion,
    write_custom_diffusion,
)
from jaxgen.runs.tuning.files import layer_names  # noqa: E402
from jaxgen.sampling.grafts.requests import read_adapter  # noqa: E402
from jaxgen.sampling.prompts import TextRequest  # noqa: E402
from jaxgen.sampling.restore import pretrained  # noqa: E402

pytestmark = pytest.mark.parity

CHANCE = np.random.default_rng(0)
LATENTS = CHANCE.standard_normal((2, 8, 8, 4)).astype(np.float32)
TIMES, CONTEXT = np.array([10.0, 500.0], np.float32), CHANCE.standard_normal((2, 12, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("custom") / "made"
    tiny_pipeline.write(folder)
    return folder


def loaded(folder, *adapters):
    config, _ = config_files.load_config(tiny.ROOT / "configs" / "stable_diffusion.py")
    config.init_from.pretrained = str(folder)
    trained = pretrained(config, TextRequest(["a red cat"]), [read_adapter(adapter) for adapter in adapters])
    return trained.generator.method, trained.model.params


def ours(method, params):
    with jax.default_matmul_precision("highest"):
        return np.asarray(method.network.apply({"params": params["denoiser"]}, LATENTS, TIMES, context=CONTEXT))


def theirs(unet):
    with torch.no_grad():
        found = unet(torch.tensor(LATENTS.transpose(0, 3, 1, 2)), torch.tensor(TIMES), torch.tensor(CONTEXT)).sample
    return found.numpy().transpose(0, 2, 3, 1)


def their_unet(folder):
    return diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")


@pytest.mark.parametrize("all_four", [False, True])
def test_a_file_of_diffusers_is_read(all_four, folder, tmp_path):
    unet, chance = their_unet(folder), torch.Generator().manual_seed(0)
    processors = {}
    for name in unet.attn_processors:
        attention = unet.get_submodule(name.removesuffix(".processor"))
        crosses = name.endswith("attn2.processor")
        width, context = attention.to_k.weight.shape
        of = CustomDiffusionAttnProcessor(crosses, crosses and all_four, width, context if crosses else None)
        for weight in of.parameters():
            weight.data = 0.3 * torch.randn(weight.shape, generator=chance)
        processors[name] = of
    plain = theirs(unet)
    unet.set_attn_processor(processors)
    unet.save_attn_procs(tmp_path)
    wanted = theirs(unet)
    assert np.abs(wanted - plain).max() > 0.05
    np.testing.assert_allclose(ours(*loaded(folder, f"custom_diffusion:{tmp_path}")), wanted, atol=1e-5)


@pytest.mark.parametrize("layers", [("key", "value"), ("key", "value", "query", "out")])
def test_our_file_is_read_by_diffusers(layers, folder, tmp_path):
    method, params = loaded(folder)
    names = layer_names(method, params)["denoiser"]
    leaves = {}
    for path in names.layers:
        if path.split("/")[-2:][0] == "cross_attention" and path.split("/")[-1] in layers:
            tree = params["denoiser"]
            for part in path.split("/"):
                tree = tree[part]
            for kind, leaf in tree.items():
                leaves[f"{path}/{kind}"] = (0.3 * CHANCE.standard_normal(leaf.shape)).astype(np.float32)
    write_custom_diffusion(tmp_path / FILE, leaves, names)
    again = read_custom_diffusion(tmp_path, names, "--adapter")
    assert again.keys() == leaves.keys() and all(np.array_equal(again[path], leaves[path]) for path in leaves)
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    plain = theirs(pipe.unet)
    pipe.unet.load_attn_procs(tmp_path, weight_name=FILE, _pipeline=pipe)  # without a pipeline 0.42 loads nothing
    wanted = theirs(pipe.unet)
    assert np.abs(wanted - plain).max() > 0.05
    np.testing.assert_allclose(ours(*loaded(folder, f"custom_diffusion:{tmp_path}")), wanted, atol=1e-5)


def test_what_is_no_file_of_custom_diffusion_is_one_sentence(folder, tmp_path):
    method, params = loaded(folder)
    names = layer_names(method, params)["denoiser"]
    good = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_k_custom_diffusion.weight"
    for key, shape, told in (
        ("lora_down", (2, 2), "which is no part of a file of Custom Diffusion"),
        (good.replace("down_blocks.0", "down_blocks.7"), (2, 2), "which the model does not have"),
        (good, (2, 2), "does not belong to this model.* has shape"),
        (good, (0,), "holds no weights"),
    ):
        safetensors.numpy.save_file({key: np.zeros(shape, np.float32)}, tmp_path / FILE)
        with pytest.raises(UserError, match=told):
            loaded(folder, f"custom_diffusion:{tmp_path}")
    with pytest.raises(UserError, match="is a pickle"):
        loaded(folder, f"custom_diffusion:{tmp_path / 'a.bin'}")
    with pytest.raises(UserError, match="no parameter of an attention"):
        write_custom_diffusion(tmp_path / FILE, {"conv_in/kernel": np.zeros(1)}, names)
    key = "down_0_attention_0/block_0/cross_attention/key/kernel"
    with pytest.raises(UserError, match="has keys and values of an attention, or all four"):
        write_custom_diffusion(tmp_path / FILE, {key: np.zeros((2, 2))}, names)
