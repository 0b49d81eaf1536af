"""Text to image from a folder that diffusers wrote, and back: the same noise and words give the same image."""

from __future__ import annotations

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
import running
import tiny
import tiny_finetune
import tiny_pipeline

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
import diffusers  # noqa: E402
import transformers  # noqa: E402

from jaxgen.config import files as config_files  # noqa: E402
from jaxgen.diffusion.prediction_types import Epsilon, V  # noqa: E402
from jaxgen.interop import diffusers_pipeline as interop  # noqa: E402
from jaxgen.interop.diffusers_files import open_weights  # noqa: E402
from jaxgen.sampling.export import export  # noqa: E402
from jaxgen.sampling.prompts import TextRequest  # noqa: E402
from jaxgen.sampling.restore import pretrained, restore  # noqa: E402

pytestmark = pytest.mark.parity

PROMPTS, NEGATIVE = ["a red cat", "dog & CAT!"], "red dog"
STEPS, SCALE = 10, 7.5
WEIGHTS = (("unet", interop.MODEL), ("vae", interop.MODEL), ("text_encoder", interop.TEXT_MODEL))


def randomise(model):
    """Weights large enough that no part is close to the identity, or to nothing."""
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += torch.randn(weight.shape, generator=chance) * (0.2 if weight.ndim == 1 else 0.05)
    return model.eval()


def write_theirs(folder: pathlib.Path, scheduler, linear: bool) -> None:
    """A pipeline folder made by diffusers and transformers alone."""
    files = folder.with_name("files")
    vocabulary = tiny_pipeline.write_tokenizer(files)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(files)
    text = transformers.CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tiny_pipeline.LENGTH,
        hidden_act="gelu" if linear else "quick_gelu",
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
        cross_attention_dim=16,
        attention_head_dim=(2, 4, 4) if linear else 4,
        use_linear_projection=linear,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        scaling_factor=0.6,
        sample_size=16,
    )
    torch.manual_seed(0)
    diffusers.StableDiffusionPipeline(
        vae=randomise(vae),
        text_encoder=randomise(transformers.CLIPTextModel(text)),
        tokenizer=tokenizer,
        unet=randomise(unet),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)


def theirs(folder: pathlib.Path, noise: np.ndarray, scale: float = SCALE, steps: int = STEPS) -> np.ndarray:
    """Images [N, H, W, 3] in [0, 1] of diffusers' own pipeline, by DDIM."""
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        PROMPTS,
        negative_prompt=[NEGATIVE] * len(PROMPTS),
        num_inference_steps=steps,
        guidance_scale=scale,
        latents=torch.from_numpy(noise),
        output_type="np",
    ).images


def ours(folder: pathlib.Path, noise: np.ndarray, tmp_path: pathlib.Path, **sampler) -> np.ndarray:
    """The same by jaxgen, not rounded."""
    np.save(tmp_path / "noise.npy", noise)
    config, _ = config_files.load_config(tiny.ROOT / "configs" / "stable_diffusion.py")
    config.init_from.pretrained = str(folder)
    config.sampler.update(**{"steps": STEPS, "guidance_scale": SCALE, **sampler})
    trained = pretrained(config, TextRequest(PROMPTS, NEGATIVE, tmp_path / "noise.npy", len(noise)))
    index = np.arange(len(noise))
    batch = trained.generator._conditions(index, None)
    keys = jax.random.split(jax.random.key(0), len(noise))
    with jax.default_matmul_precision("highest"):
        found = jax.jit(trained.generator.method.sample)(trained.model, keys, batch)
    return np.clip(np.asarray(found) / 2 + 0.5, 0, 1)


def noise() -> np.ndarray:
    """Start noise in diffusers' layout."""
    return np.random.default_rng(5).standard_normal((2, 4, 8, 8)).astype(np.float32)


LIGHT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS = {
    "epsilon, as Stable Diffusion 1 has it": (
        diffusers.PNDMScheduler,
        {"set_alpha_to_one": False, "steps_offset": 1, "skip_prk_steps": True},
    ),
    "v, as Stable Diffusion 2 has it": (
        diffusers.DDIMScheduler,
        {"prediction_type": "v_prediction", "set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False},
    ),
    "v, without signal at the end": (
        diffusers.DDIMScheduler,
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_same_noise_and_words_give_the_same_image_there_and_back(name, tmp_path):
    kind, options = SCHEDULERS[name]
    scheduler = kind(**LIGHT, **options)
    write_theirs(tmp_path / "theirs", scheduler, linear=name.startswith("v"))
    wanted = theirs(tmp_path / "theirs", noise())
    found = ours(tmp_path / "theirs", noise(), tmp_path)
    assert wanted.std() > 0.05 and np.mean((wanted > 0) & (wanted < 1)) > 0.5
    assert np.abs(wanted[0] - wanted[1]).mean() > 0.02
    np.testing.assert_allclose(found, wanted, atol=1e-4)

    pipeline = interop.read_pipeline(tmp_path / "theirs")
    interop.save_pipeline(tmp_path / "back", pipeline, interop.read_params(tmp_path / "theirs"))
    for part, stem in WEIGHTS:
        told, back = (open_weights(tmp_path / side / part, stem) for side in ("theirs", "back"))
        names = {key.removeprefix("text_model."): key for key in back}
        assert {key.removeprefix("text_model.") for key in told} == set(names)
        for key in told:
            np.testing.assert_array_equal(told[key], back[names[key.removeprefix("text_model.")]])
    np.testing.assert_array_equal(theirs(tmp_path / "back", noise()), wanted)


# {solver here: (class and entries there that are the same solver)}; all of these folders leave an old entry over
SOLVERS = [
    ("ddim", "EulerDiscreteScheduler", {}),
    ("ddim", "EulerDiscreteScheduler", {"use_karras_sigmas": True, "timestep_spacing": "leading"}),
    ("ddim", "LMSDiscreteScheduler", {"order": 1}),
    ("heun", "HeunDiscreteScheduler", {"timestep_spacing": "trailing"}),
    ("dpmpp_2m", "DPMSolverMultistepScheduler", {}),
    ("dpmpp_2m", "DPMSolverMultistepScheduler", {"timestep_spacing": "leading"}),
    ("dpmpp_2m", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    ("dpmpp_2m", "DPMSolverMultistepScheduler", {"use_beta_sigmas": True, "final_sigmas_type": "sigma_min"}),
    ("unipc", "UniPCMultistepScheduler", {}),
    ("unipc", "UniPCMultistepScheduler", {"use_exponential_sigmas": True, "final_sigmas_type": "sigma_min"}),
    ("ddim", "DEISMultistepScheduler", {"solver_order": 1, "use_karras_sigmas": True}),
    ("ddim", "DDIMScheduler", {"timestep_spacing": "leading"}),
]


@pytest.fixture(scope="module")
def their_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "theirs"
    write_theirs(folder, diffusers.PNDMScheduler(**LIGHT, skip_prk_steps=True), linear=False)
    return folder


@pytest.mark.parametrize(("solver", "kind", "entries"), SOLVERS)
def test_each_class_of_schedulers_draws_its_image(their_folder, tmp_path, solver, kind, entries):
    told = {**LIGHT, **entries}
    if kind != "DDIMScheduler":
        told["set_alpha_to_one"] = kind == "DEISMultistepScheduler"
    path = their_folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": kind, **told}))
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(their_folder, safety_checker=None)
    pipe.scheduler = getattr(diffusers, kind).from_config({**told, "steps_offset": 1, "clip_sample": False})
    pipe.set_progress_bar_config(disable=True)
    if "order" in entries:
        pipe.scheduler.step = functools.partial(pipe.scheduler.step, order=entries["order"])
    wanted = pipe(
        PROMPTS,
        negative_prompt=[NEGATIVE] * len(PROMPTS),
        num_inference_steps=6,
        guidance_scale=SCALE,
        latents=torch.from_numpy(noise()),
        output_type="np",
    ).images
    found = ours(their_folder, noise(), tmp_path, name=solver, steps=6)
    difference = np.abs(np.round(found * 255) - np.round(wanted * 255))
    assert wanted.std() > 0.05 and difference.max() <= 1 and difference.mean() <= 0.1


@pytest.mark.parametrize("prediction", [Epsilon(), V()])
def test_what_was_made_here_is_drawn_alike_by_diffusers(prediction, tmp_path):
    tiny_pipeline.write(tmp_path / "made", prediction)
    wanted = theirs(tmp_path / "made", noise())
    assert wanted.std() > 0.05
    np.testing.assert_allclose(ours(tmp_path / "made", noise(), tmp_path), wanted, atol=1e-4)


@pytest.mark.nightly
def test_a_fine_tuned_folder_is_drawn_alike_by_diffusers(tmp_path):
    write_theirs(tmp_path / "theirs", diffusers.PNDMScheduler(**LIGHT, skip_prk_steps=True), linear=False)
    before = theirs(tmp_path / "theirs", noise())
    tiny_finetune.write_pictures(tmp_path / "pictures")
    config = tiny_finetune.finetune_config(tmp_path / "theirs", tmp_path / "pictures")
    running.run(config, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "back")
    wanted = theirs(tmp_path / "back", noise())
    assert wanted.std() > 0.05 and np.abs(wanted - before).mean() > 0.01
    np.testing.assert_allclose(ours(tmp_path / "back", noise(), tmp_path), wanted, atol=1e-3)

    config.sampler.update(steps=STEPS, guidance_scale=SCALE)  # the run itself, without the folder that was written
    found = restore(config, tmp_path / "run")
    tokenizer = interop.read_tokenizer(tmp_path / "theirs", tiny_pipeline.LENGTH)
    batch = {
        "tokens": tokenizer(PROMPTS), "null_tokens": tokenizer([NEGATIVE] * 2), "noise": noise().transpose(0, 2, 3, 1)
    }  # fmt: skip
    with jax.default_matmul_precision("highest"):
        drawn = jax.jit(found.generator.method.sample)(found.model, jax.random.split(jax.random.key(0), 2), batch)
    np.testing.assert_allclose(np.clip(np.asarray(drawn) / 2 + 0.5, 0, 1), wanted, atol=1e-3)


def test_the_command_writes_the_images_of_diffusers(tmp_path):
    tiny_pipeline.write(tmp_path / "made")
    wanted = theirs(tmp_path / "made", noise())
    np.save(tmp_path / "noise.npy", noise())
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    status = tiny.call(
        "--config=configs/stable_diffusion.py",
        f"--config.init_from.pretrained={tmp_path / 'made'}",
        "--mode=sample",
        f"--prompts={tmp_path / 'prompts.txt'}",
        f"--negative_prompt={NEGATIVE}",
        f"--noise={tmp_path / 'noise.npy'}",
        f"--config.sampler.steps={STEPS}",
        f"--config.sampler.guidance_scale={SCALE}",
        f"--out={tmp_path / 'out'}",
    )
    assert status == 0
    samples = np.load(tmp_path / "out" / "samples.npz")
    assert samples["prompts"].tolist() == PROMPTS
    assert np.abs(samples["images"] / 255 - wanted).max() < 0.51 / 255


def test_tokens_are_those_of_transformers(tmp_path):
    tiny_pipeline.write_tokenizer(tmp_path)
    peer = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    texts = [*PROMPTS, NEGATIVE, "", "cat " * 30]
    told = peer(texts, padding="max_length", max_length=tiny_pipeline.LENGTH, truncation=True).input_ids
    peer.save_pretrained(tmp_path / "pipeline" / "tokenizer")
    for folder in (tmp_path / "pipeline", tmp_path):
        tokenizer = (
            interop.read_tokenizer(folder) if folder != tmp_path else interop.ClipTokenizer.from_folder(tmp_path)
        )
        np.testing.assert_array_equal(tokenizer.tokenize(texts, tiny_pipeline.LENGTH), told)
