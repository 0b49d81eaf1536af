"""Low-rank updates and new words: files of peft and diffusers are read here, ours there, with equal predictions."""

from __future__ import annotations

import json
import logging

import jax
import numpy as np
import pytest
import running
import tiny
import tiny_finetune
import tiny_pipeline

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
peft = pytest.importorskip("peft", reason="parity of low-rank updates needs peft: install the extra 'parity'")
import diffusers  # noqa: E402

from jaxgen.config import files as config_files  # noqa: E402
from jaxgen.config import section  # noqa: E402
from jaxgen.interop.adapters.lora import FILE, Update, lora_file, read_lora, write_lora  # noqa: E402
from jaxgen.methods.grafts.low_rank import layers  # noqa: E402
from jaxgen.runs.tuning.files import layer_names  # noqa: E402
from jaxgen.sampling.export import export  # noqa: E402
from jaxgen.sampling.grafts.requests import read_adapter  # noqa: E402
from jaxgen.sampling.prompts import TextRequest  # noqa: E402
from jaxgen.sampling.restore import pretrained, restore  # noqa: E402

pytestmark = pytest.mark.parity

PROMPT = "a red cat"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in"]  # proj_in is a convolution of one pixel or a linear layer
CHANCE = np.random.default_rng(0)
LATENTS = CHANCE.standard_normal((2, 8, 8, 4)).astype(np.float32)
TIMES = np.array([10.0, 500.0], np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "made"
    tiny_pipeline.write(folder)
    return folder


def pipeline(folder):
    return diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)


def fill(model, seed=0):
    """Draws all matrices of updates; those of peft begin at zero."""
    chance = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = 0.2 * torch.randn(weight.shape, generator=chance)


def theirs(pipe, tokens):
    """Returns (context, prediction) of diffusers' networks."""
    with torch.no_grad():
        context = pipe.text_encoder(torch.tensor(tokens).long())[0]
        found = pipe.unet(torch.tensor(LATENTS.transpose(0, 3, 1, 2)), torch.tensor(TIMES), context).sample
    return context.numpy(), found.numpy().transpose(0, 2, 3, 1)


def ours(method, params, tokens):
    """The same of ours, by a method that samples from a folder."""
    with jax.default_matmul_precision("highest"):
        context, _ = method.text.apply({"params": params["text"]}, tokens)
        found = method.network.apply({"params": params["denoiser"]}, LATENTS, TIMES, context=context)
    return np.asarray(context), np.asarray(found)


def with_adapters(folder, *adapters, prompt=PROMPT):
    config, _ = config_files.load_config(tiny.ROOT / "configs" / "stable_diffusion.py")
    config.init_from.pretrained = str(folder)
    trained = pretrained(config, TextRequest([prompt]), [read_adapter(adapter) for adapter in adapters])
    return trained.generator.method, trained.model.params, trained.generator.given["tokens"].repeat(2, axis=0)


def check_equal(found, wanted, plain):
    for one, other, without in zip(found, wanted, plain, strict=True):
        assert np.abs(other - without).max() > 0.05  # the update is no small thing
        np.testing.assert_allclose(one, other, atol=1e-5)


def unets_layers(pipe, metadata=False):
    layers = peft.get_peft_model_state_dict(pipe.unet)
    return {"unet_lora_layers": layers} if not metadata else {
        "unet_lora_layers": layers, "unet_lora_adapter_metadata": pipe.unet.peft_config["default"].to_dict(),
    }  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_files_of_peft_and_diffusers_are_read(scale, folder, tmp_path):
    """Both networks are updated; the factors alpha / r are 2 and 1 / 2."""
    pipe = pipeline(folder)
    tokens = pipe.tokenizer(PROMPT, padding="max_length", max_length=12, return_tensors="np").input_ids.repeat(2, 0)
    plain = theirs(pipe, tokens)
    pipe.unet.add_adapter(peft.LoraConfig(r=3, lora_alpha=6, target_modules=TARGETS))
    text = peft.LoraConfig(r=2, lora_alpha=1, target_modules=["q_proj", "v_proj", "fc1"])
    pipe.text_encoder = peft.inject_adapter_in_model(text, pipe.text_encoder)
    fill(pipe.unet), fill(pipe.text_encoder, 1)
    diffusers.StableDiffusionPipeline.save_lora_weights(
        tmp_path, **unets_layers(pipe, metadata=True),
        text_encoder_lora_layers=peft.get_peft_model_state_dict(pipe.text_encoder),
        text_encoder_lora_adapter_metadata=text.to_dict(),
    )  # fmt: skip
    for model in (pipe.unet, pipe.text_encoder):
        for module in model.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                module.scale_layer(scale)
    method, params, found = with_adapters(folder, f"lora:{tmp_path}:{scale}")
    np.testing.assert_array_equal(found, tokens)
    check_equal(ours(method, params, tokens), theirs(pipe, tokens), plain)


def test_a_folder_of_peft_alone_is_read(folder, tmp_path):
    pipe = pipeline(folder)
    method, params, tokens = with_adapters(folder)
    plain = theirs(pipe, tokens)
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=TARGETS, use_rslora=True, alpha_pattern={"attn2.to_q": 9}
    )
    model = peft.get_peft_model(pipe.unet, config)
    fill(model)
    model.save_pretrained(tmp_path)
    wanted = theirs(pipe, tokens)
    method, params, _ = with_adapters(folder, f"lora:{tmp_path}")
    check_equal(ours(method, params, tokens)[1:], wanted[1:], plain[1:])


def test_two_adapters_add_up_as_in_diffusers(folder, tmp_path):
    pipe = pipeline(folder)
    method, params, tokens = with_adapters(folder)
    plain = theirs(pipe, tokens)
    for name, seed in (("one", 2), ("two", 3)):
        own = pipeline(folder)
        own.unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=TARGETS))
        fill(own.unet, seed)
        diffusers.StableDiffusionPipeline.save_lora_weights(tmp_path / name, **unets_layers(own))
        pipe.load_lora_weights(tmp_path / name, adapter_name=name)
    pipe.set_adapters(["one", "two"], [0.7, 1.0])
    method, params, _ = with_adapters(folder, f"lora:{tmp_path / 'one'}:0.7", f"lora:{tmp_path / 'two'}")
    check_equal(ours(method, params, tokens)[1:], theirs(pipe, tokens)[1:], plain[1:])


def test_updates_of_convolutions_are_read_and_written(folder, tmp_path):
    pipe = pipeline(folder)
    method, params, tokens = with_adapters(folder)
    plain = theirs(pipe, tokens)
    targets = ["to_q", "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "conv_in"]
    pipe.unet.add_adapter(peft.LoraConfig(r=3, lora_alpha=6, target_modules=targets))
    fill(pipe.unet)
    diffusers.StableDiffusionPipeline.save_lora_weights(tmp_path / "theirs", **unets_layers(pipe, metadata=True))
    wanted = theirs(pipe, tokens)
    method, params, _ = with_adapters(folder, f"lora:{tmp_path / 'theirs'}")
    check_equal(ours(method, params, tokens)[1:], wanted[1:], plain[1:])
    names = layer_names(*with_adapters(folder)[:2])
    updates = read_lora(lora_file(tmp_path / "theirs", "a test"), names)
    assert sum(update.a.ndim == 4 for update in updates["denoiser"].values()) > 10
    (tmp_path / "ours").mkdir()
    write_lora(tmp_path / "ours" / FILE, updates, names)
    again = pipeline(folder)
    again.load_lora_weights(tmp_path / "ours")
    check_equal(theirs(again, tokens)[1:], wanted[1:], plain[1:])


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run of both kinds of grafts, and its config; the updates are enlarged by a high learning rate."""
    place = tmp_path_factory.mktemp("run")
    tiny_finetune.write_pictures(place / "pictures")
    for file in (place / "pictures").glob("*.txt"):
        file.write_text(file.read_text().replace("cat", "<toy>"))
    config = tiny_finetune.finetune_config(folder, place / "pictures")
    lora = section(
        name="low_rank", rank=2, alpha=3.0, where=r"attention(_\d+)?/(query|key|value|out)$|attention_\d/in$"
    )
    word = section(name="token_rows", word="<toy>", initial="cat", count=2)
    config.method = section(name="tuned", grafts=section(lora=lora, again=section(name="low_rank", rank=1), word=word))
    config.optimizer.learning_rate = 5e-2
    running.run(config, place / "run", 40)
    return config, place / "run"


def test_our_file_of_low_rank_updates_is_read_by_diffusers(folder, run, tmp_path):
    config, workdir = run
    told = export(workdir, tmp_path / "out")
    assert [*told] == ["pytorch_lora_weights.safetensors", "learned_embeds.safetensors"]
    pipe = pipeline(folder)
    method, params, tokens = with_adapters(folder)
    plain = theirs(pipe, tokens)
    pipe.load_lora_weights(tmp_path / "out")
    wanted = theirs(pipe, tokens)[1]
    assert np.abs(wanted - plain[1]).max() > 0.05
    trained = restore(config, workdir)
    tuned, params = trained.generator.method, trained.model.params
    with jax.default_matmul_precision("highest"):
        network, of = tuned.method.network, tuned.on(params)["denoiser"]
        found = network.apply({"params": of}, LATENTS, TIMES, context=plain[0])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    again, params, _ = with_adapters(folder, f"lora:{tmp_path / 'out'}")
    np.testing.assert_allclose(ours(again, params, tokens)[1], wanted, atol=1e-5)


def test_our_file_of_both_networks_and_several_ranks_is_read_by_diffusers(folder, tmp_path, caplog):
    """`load_lora_weights` takes ranks, alpha and layers from the file's metadata where there are any."""
    method, params, tokens = with_adapters(folder)
    kernels = {group: layers(params[group]) for group in ("denoiser", "text")}
    of_text = [path for path in kernels["text"] if path.endswith(("query", "value", "mlp_in"))]
    of_unet = [path for path in kernels["denoiser"] if path.endswith(("cross_attention/key", "self_attention/out"))]
    assert len(of_text) == 6 and len(of_unet) > 5
    updates: dict[str, dict[str, Update]] = {"text": {}, "denoiser": {}}
    for group, paths in (("text", of_text), ("denoiser", of_unet)):
        for i, path in enumerate(paths):
            rank, (wide, narrow) = (2, 3, 2)[i % 3], kernels[group][path].shape
            a, b = CHANCE.standard_normal((wide, rank)), 0.1 * CHANCE.standard_normal((rank, narrow))
            updates[group][path] = Update(a.astype(np.float32), b.astype(np.float32))
    write_lora(tmp_path / FILE, updates, layer_names(method, params))
    pipe = pipeline(folder)
    plain = theirs(pipe, tokens)
    pipe.load_lora_weights(tmp_path)
    assert {config.r for model in (pipe.unet, pipe.text_encoder) for config in model.peft_config.values()} == {2}
    with caplog.at_level(logging.INFO, "jaxgen"):
        check_equal(ours(*with_adapters(folder, f"lora:{tmp_path}")[:2], tokens), theirs(pipe, tokens), plain)
    assert "does not say alpha" not in caplog.text


def test_our_file_of_a_word_is_read_by_diffusers(folder, run, tmp_path):
    export(run[1], tmp_path / "out")
    pipe = pipeline(folder)
    pipe.load_textual_inversion(tmp_path / "out")
    text = pipe.maybe_convert_prompt("a red <toy>", pipe.tokenizer)
    tokens = pipe.tokenizer(text, padding="max_length", max_length=12, return_tensors="np").input_ids
    with torch.no_grad():
        wanted = pipe.text_encoder(torch.tensor(tokens))[0].numpy()
    method, params, found = with_adapters(folder, f"embedding:{tmp_path / 'out'}", prompt="a red <toy>")
    np.testing.assert_array_equal(found[:1], tokens)
    with jax.default_matmul_precision("highest"):
        np.testing.assert_allclose(ours(method, params, found)[0][:1], wanted, atol=1e-5)
        trained = restore(*run)
        trained.generator.use_prompts(["a red <toy>"])
        tuned, tokens = trained.generator.method, trained.generator.given["tokens"]
        hidden, _ = tuned.method.text.apply({"params": tuned.on(trained.model.params)["text"]}, tokens)
        np.testing.assert_allclose(hidden, wanted, atol=1e-5)


def test_their_file_of_a_word_is_read(folder, tmp_path):
    rows = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    import safetensors.torch

    safetensors.torch.save_file({"<their-toy>": rows}, tmp_path / "learned_embeds.safetensors")
    pipe = pipeline(folder)
    pipe.load_textual_inversion(tmp_path)
    text = pipe.maybe_convert_prompt("<their-toy> dog", pipe.tokenizer)
    tokens = pipe.tokenizer(text, padding="max_length", max_length=12, return_tensors="np").input_ids
    with torch.no_grad():
        wanted = pipe.text_encoder(torch.tensor(tokens))[0].numpy()
    method, params, found = with_adapters(folder, f"embedding:{tmp_path}", prompt="<their-toy> dog")
    np.testing.assert_array_equal(found[:1], tokens)
    with jax.default_matmul_precision("highest"):
        np.testing.assert_allclose(ours(method, params, found)[0][:1], wanted, atol=1e-5)


def test_a_merged_pipeline_predicts_as_the_run_does(folder, run, tmp_path):
    told = export(run[1], tmp_path / "out", merge=True)
    assert [*told] == ["model_index.json", "learned_embeds.safetensors"]
    pipe = pipeline(tmp_path / "out")
    export(run[1], tmp_path / "parts")
    method, params, tokens = with_adapters(folder, f"lora:{tmp_path / 'parts'}")
    plain = theirs(pipeline(folder), tokens)
    check_equal(ours(method, params, tokens)[1:], theirs(pipe, tokens)[1:], plain[1:])
    assert json.loads((tmp_path / "out" / "model_index.json").read_text())["unet"][1] == "UNet2DConditionModel"
