"""Stable Diffusion's folders written and read without torch; what is missing or wrong is named in one sentence."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny_pipeline

from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction_types import Epsilon, Velocity
from jaxgen.errors import UserError
from jaxgen.interop import diffusers_pipeline as interop
from jaxgen.interop.diffusers_scheduler import Noise
from jaxgen.methods.diffusion.stable_diffusion import StableDiffusion
from jaxgen.sampling.prompts import TextRequest, read_noise, text_conditions


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "made"
    return folder, *tiny_pipeline.write(folder)


@pytest.fixture
def folder(made, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(made[0], tmp_path / "copy")


def test_a_folder_is_read_as_it_was_written(made):
    folder, pipeline, params = made
    read = interop.read_pipeline(folder)
    for name in ("unet", "autoencoder", "text", "scaling", "latent_size", "length"):
        assert getattr(read, name) == getattr(pipeline, name), name
    np.testing.assert_array_equal(read.noise.schedule.betas, pipeline.noise.schedule.betas)
    assert read.noise.prediction_type == Epsilon() and read.length == tiny_pipeline.LENGTH
    jax.tree.map(np.testing.assert_array_equal, params, interop.read_params(folder))


def test_half_precision_is_kept_where_asked(made, tmp_path):
    _, pipeline, params = made
    interop.save_pipeline(tmp_path, pipeline, params, "float16")
    kept = interop.read_params(tmp_path, "")
    whole = interop.read_params(tmp_path)
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {np.dtype(np.float16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(whole)} == {np.dtype(np.float32)}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), whole, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(interop.read_params(tmp_path, "bfloat16"))} == {
        jnp.dtype("bfloat16")
    }


def test_leaves_are_placed_one_by_one(made):
    seen = []

    def place(array):
        seen.append(array.nbytes)
        return jnp.asarray(array)

    params = interop.read_params(made[0], place=place)
    leaves = jax.tree.leaves(params)
    assert len(seen) == len(leaves) and all(isinstance(leaf, jax.Array) for leaf in leaves)


def test_networks_see_the_scheduler_s_own_numbers_of_levels(folder):
    edit_json(folder / "scheduler" / "scheduler_config.json", trained_betas=None, num_train_timesteps=200)
    pipeline = interop.read_pipeline(folder)
    times = pipeline.noise.walk(10)[1][:-1]
    seen = pipeline.unet.time_scale * pipeline.noise.schedule.conditioning(times)
    np.testing.assert_allclose(seen, np.arange(181, 0, -20))


def edit_json(path, **changes):
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, **changes}))


def edit_weights(path, change):
    state = safetensors.numpy.load_file(path)
    change(state)
    safetensors.numpy.save_file(state, path)


CONFIGS = [
    (
        "model_index.json",
        {"_class_name": "StableDiffusionXLPipeline"},
        "'StableDiffusionXLPipeline', which is not read",
    ),
    (
        "unet/config.json",
        {"addition_embed_type": "text_time"},
        "addition_embed_type='text_time' has no equivalent here, only None",
    ),
    ("unet/config.json", {"act_fn": "gelu"}, "act_fn='gelu' has no equivalent here, only 'silu' or 'swish'"),
    ("unet/config.json", {"down_block_types": ["AttnDownBlock2D"] * 2}, "'AttnDownBlock2D' has no equivalent"),
    ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 2}, "attend at different levels"),
    ("unet/config.json", {"up_block_types": ["UpBlock2D"]}, "not of one length"),
    ("unet/config.json", {"block_out_channels": [16, 24]}, "not multiples of the first"),
    ("unet/config.json", {"layers_per_block": [1, 2, 3]}, "layers_per_block=.* or one for each level"),
    ("unet/config.json", {"attention_head_dim": [1, 2, 3]}, "attention_head_dim=.* or one for each level"),
    ("unet/config.json", {"num_class_embeds": 1}, "num_class_embeds=1"),
    ("unet/config.json", {"class_embed_type": "projection"}, "projection_class_embeddings_input_dim"),
    ("unet/config.json", {"norm_num_groups": None}, "norm_num_groups=None"),
    ("unet/config.json", {"attention_heads_dim": 3}, "attention_heads_dim.* did you mean 'attention_head_dim'"),
    ("unet/config.json", {"in_channels": 9}, "takes 9 channels and gives 4.*inpainting"),
    ("unet/config.json", {"num_class_embeds": 7}, "needs labels"),
    ("unet/config.json", {"cross_attention_dim": 24}, "texts of 24 features, but the text_encoder gives 16"),
    ("vae/config.json", {"down_block_types": ["AttnDownEncoderBlock2D"] * 2}, "only 'DownEncoderBlock2D'"),
    ("vae/config.json", {"latents_mean": [0.0]}, "latents_mean=.* has no equivalent here, only None"),
    ("text_encoder/config.json", {"use_attention_mask": True}, "use_attention_mask"),
    ("text_encoder/config.json", {"architectures": ["T5EncoderModel"]}, "'T5EncoderModel'; only a CLIPTextModel"),
    ("scheduler/scheduler_config.json", {"_class_name": "LCMScheduler"}, "scheduler_config.json is of 'LCMScheduler'"),
    ("model_index.json", {"_class_name": ["x"]}, r"'_class_name' is \["),
    (
        "unet/config.json",
        {"block_out_channels": None},
        "config.json: 'block_out_channels' is null, where a list is needed",
    ),
    (
        "unet/config.json",
        {"block_out_channels": [16, "32"]},
        "'block_out_channels\\[1\\]' is \"32\", where a whole number",
    ),
    ("unet/config.json", {"in_channels": "4"}, "'in_channels' is \"4\", where a whole number is needed"),
    ("unet/config.json", {"layers_per_block": 10**9}, "'layers_per_block' is 1000000000, where"),
    ("unet/config.json", {"norm_eps": "small"}, "'norm_eps' is \"small\", where a number is needed"),
    ("vae/config.json", {"scaling_factor": "x"}, "'scaling_factor' is \"x\""),
    ("vae/config.json", {"scaling_factor": -1}, "'scaling_factor' is -1, where"),
    ("text_encoder/config.json", {"hidden_size": None}, "'hidden_size' is null, where a whole number is needed"),
    ("text_encoder/config.json", {"architectures": 3}, "'architectures' is 3, where"),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": "1000"}, "'num_train_timesteps' is \"1000\", where"),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "'num_train_timesteps' is 1000000000, where"),
    ("scheduler/scheduler_config.json", {"trained_betas": "0.1 0.2"}, "'trained_betas' is \"0.1 0.2\", where a list"),
    ("scheduler/scheduler_config.json", {"trained_betas": [0.1, "x"]}, r"'trained_betas\[1\]' is \"x\""),
    (
        "scheduler/scheduler_config.json",
        {"set_alpha_to_one": "no"},
        "'set_alpha_to_one' is \"no\", where true or false",
    ),
]


@pytest.mark.parametrize(("file", "changes", "words"), CONFIGS)
def test_configs_without_an_equal_are_refused(file, changes, words, folder):
    edit_json(folder / file, **changes)
    with pytest.raises(UserError, match=words):
        interop.read_pipeline(folder)


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_missing_configs_are_named(file, folder):
    (folder / file).unlink()
    with pytest.raises(UserError, match=f"There is no file .*{file}"):
        interop.read_pipeline(folder)


def test_a_missing_folder_and_tokenizer(folder, tmp_path):
    with pytest.raises(UserError, match="There is no folder .*gone"):
        interop.read_pipeline(tmp_path / "gone")
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(UserError, match=r"holds no CLIP tokenizer"):
        interop.read_tokenizer(folder)


WEIGHTS = ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"]


@pytest.mark.parametrize("file", WEIGHTS)
def test_weights_that_are_missing_damaged_or_of_another_shape_are_named(file, folder):
    path = folder / f"{file}.safetensors"
    whole = path.read_bytes()
    name = min(key for key in safetensors.numpy.load_file(path) if key.endswith("weight"))

    edit_weights(path, lambda state: state.pop(name))
    with pytest.raises(UserError, match=f"lack.* '{name}', which its config asks for|lack '{name}'"):
        interop.read_params(folder)
    path.write_bytes(whole)
    edit_weights(path, lambda state: state.update({"more.weight": np.zeros(2, np.float32)}))
    with pytest.raises(UserError, match="'more.weight', which .* config does not account for"):
        interop.read_params(folder)
    path.write_bytes(whole)
    edit_weights(path, lambda state: state.update({name: np.zeros((2, 3), np.float32)}))
    with pytest.raises(UserError, match=rf"{name}.* has shape \(2, 3\), but its config asks for"):
        interop.read_params(folder)
    path.write_bytes(whole)
    edit_weights(path, lambda state: state.update({name: state[name].astype(np.int8)}))
    with pytest.raises(UserError, match=f"'{name}' of .* holds int8 numbers, which are no weights as they are"):
        interop.read_params(folder)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"{file}.safetensors is damaged"):
        interop.read_params(folder)
    path.unlink()
    with pytest.raises(UserError, match=f"There is no file .*{file}.safetensors"):
        interop.read_params(folder)


def test_networks_that_diffusers_lacks_are_refused(made, tmp_path):
    _, pipeline, params = made

    def again(**changes):
        parts = {"unet": pipeline.unet, "autoencoder": pipeline.autoencoder, "noise": pipeline.noise, **changes}
        tokenizer = made[0] / "tokenizer"
        return interop.new_pipeline(**parts, text=pipeline.text, scaling=1.0, tokenizer=tokenizer)

    with pytest.raises(UserError, match="resample='residual'"):
        again(unet=pipeline.unet.clone(resample="residual"))
    with pytest.raises(UserError, match="context_dim=0"):
        again(unet=pipeline.unet.clone(context_dim=0))
    with pytest.raises(UserError, match="vector_dim=3"):
        again(unet=pipeline.unet.clone(vector_dim=3))
    with pytest.raises(UserError, match="attention_levels"):
        again(unet=pipeline.unet.clone(attention_levels=None))
    with pytest.raises(UserError, match="norm_eps"):
        again(autoencoder=pipeline.autoencoder.clone(norm_eps=1e-3))
    with pytest.raises(UserError, match="Velocity"):
        again(noise=Noise(schedules.Cosine(), Velocity()))
    with pytest.raises(UserError, match="holds no tokenizer"):
        interop.new_pipeline(pipeline.unet, pipeline.autoencoder, pipeline.text, pipeline.noise, 1.0, tmp_path)
    lacking = {**params, "denoiser": {k: v for k, v in params["denoiser"].items() if k != "conv_in"}}
    with pytest.raises(UserError, match="params lack conv_in/kernel"):
        interop.save_pipeline(tmp_path / "out", pipeline, lacking)


def method(pipeline, **changes) -> StableDiffusion:
    from jaxgen.diffusion.guidance import ClassifierFree
    from jaxgen.diffusion.samplers.ddim import DDIM

    usual = {"sampler": DDIM(4, clip=False), "guidance": ClassifierFree(scale=2.0)}
    return StableDiffusion(**{**pipeline.method_fields(), **usual, **changes})


def test_texts_become_tokens(made):
    folder, pipeline, _ = made
    found = text_conditions(method(pipeline), folder, TextRequest(["a cat", "a dog"], "red"))
    assert found.keys() == {"tokens", "null_tokens"}
    assert found["tokens"].shape == found["null_tokens"].shape == (2, tiny_pipeline.LENGTH)
    assert (found["null_tokens"][0] == found["null_tokens"][1]).all()
    assert (found["tokens"][0] != found["tokens"][1]).sum() == 1
    with pytest.raises(UserError, match="--prompt"):
        text_conditions(method(pipeline), folder, TextRequest([]))
    small = method(pipeline).text.clone(vocabulary=5)
    with pytest.raises(UserError, match="do not belong together"):
        text_conditions(method(pipeline, text=small), folder, TextRequest(["a"]))


def test_what_is_cut_of_a_text_and_what_is_unknown_is_told(made, caplog):
    folder, pipeline, _ = made
    caplog.set_level("INFO", "jaxgen")
    text_conditions(method(pipeline), folder, TextRequest(["a cat", "red cat " * 6 + "dog"], "a caf\u00e9"))
    assert caplog.messages == [
        "prompt 2: 3 tokens past 10 are cut: 'red cat dog'.",
        "the negative prompt: not in the vocabulary: '\u00e9'.",
    ]
    for request in (TextRequest(["\u65e5\u672c"]), TextRequest(["a"], "\u65e5\u672c")):
        with pytest.raises(UserError, match="prompt is '\u65e5\u672c', of which the model knows no word"):
            text_conditions(method(pipeline), folder, request)


def test_texts_without_effect_are_refused(made):
    from jaxgen.diffusion.guidance import ClassifierFree

    folder, pipeline, _ = made
    for guidance, why in ((None, "there is no config.guidance"), (ClassifierFree(scale=1.0), "of scale 1 leaves")):
        with pytest.raises(UserError, match=f"--negative_prompt has no effect: .*{why}"):
            text_conditions(method(pipeline, guidance=guidance), folder, TextRequest(["a"], "b"))
    unconditional = method(pipeline, guidance=ClassifierFree(scale=0.0))
    with pytest.raises(UserError, match="--prompt has no effect"):
        text_conditions(unconditional, folder, TextRequest(["a"], "b"))
    assert len(text_conditions(unconditional, folder, TextRequest([""], "b"))["tokens"]) == 1


def test_noise_comes_in_either_layout(tmp_path):
    rows = np.random.default_rng(0).standard_normal((3, 8, 6, 4)).astype(np.float32)
    np.save(tmp_path / "ours.npy", rows)
    np.save(tmp_path / "theirs.npy", rows.transpose(0, 3, 1, 2).astype(np.float64))
    for name in ("ours", "theirs"):
        np.testing.assert_array_equal(read_noise(tmp_path / f"{name}.npy", (8, 6, 4), 3), rows)
    with pytest.raises(UserError, match=r"float32 \(3, 8, 6, 4\), but noise .* \[N, 8, 8, 4\] or \[N, 4, 8, 8\]"):
        read_noise(tmp_path / "ours.npy", (8, 8, 4), 1)
    with pytest.raises(UserError, match="noise for 3 images, but 4 are asked for"):
        read_noise(tmp_path / "ours.npy", (8, 6, 4), 4)
    with pytest.raises(UserError, match="--noise=.*there is no such file"):
        read_noise(tmp_path / "gone.npy", (8, 6, 4), 1)
    (tmp_path / "text.npy").write_text("no numbers")
    with pytest.raises(UserError, match="cannot be read as an .npy file of numbers"):
        read_noise(tmp_path / "text.npy", (8, 6, 4), 1)


def test_the_method_refuses_what_does_not_fit(made):
    from jaxgen.diffusion import guidance
    from jaxgen.diffusion.samplers.ddim import DDIM

    _, pipeline, _ = made
    assert method(pipeline).shape == (8, 8, 4)
    assert method(pipeline, height=32, width=20).shape == (16, 10, 4)
    with pytest.raises(UserError, match="config.method.height is 15; it must be a multiple"):
        method(pipeline, height=15)
    with pytest.raises(UserError, match="config.sampler.clip to False"):
        method(pipeline, sampler=DDIM(4))
    with pytest.raises(UserError, match="needs weak"):
        method(pipeline, guidance=guidance.Autoguidance(scale=2.0))
    with pytest.raises(UserError, match="does not train"):
        method(pipeline).init(jax.random.key(0), {}, 0, {}, {}, {})


# what the published config.json files of Stable Diffusion 1.5 and 2.1 say
UNETS = {
    859_520_964: {
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False,
        "cross_attention_dim": 768,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    },
    865_910_724: {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("count", UNETS)
def test_published_shapes_have_the_published_number_of_parameters(count):
    unet = interop.UNet(**interop.condition_unet_options(UNETS[count]))
    assert sum(leaf.size for leaf in jax.tree.leaves(tiny_pipeline.unet_shapes(unet, 4))) == count
