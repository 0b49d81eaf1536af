"""ControlNets: folders of diffusers are read here, ours there, with equal predictions and equal images."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import tiny
import tiny_pipeline
from PIL import Image

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
import diffusers  # noqa: E402

from jaxgen.config import files as config_files  # noqa: E402
from jaxgen.errors import UserError  # noqa: E402
from jaxgen.interop.adapters.controlnet import read_controlnet, write_controlnet  # noqa: E402
from jaxgen.methods.grafts.base import bare_network  # noqa: E402
from jaxgen.networks.control import ControlNet  # noqa: E402
from jaxgen.networks.unet import UNet  # noqa: E402
from jaxgen.sampling.grafts.requests import read_adapter  # noqa: E402
from jaxgen.sampling.prompts import TextRequest  # noqa: E402
from jaxgen.sampling.restore import pretrained  # noqa: E402

pytestmark = pytest.mark.parity

PROMPT = "a red cat"
CHANCE = np.random.default_rng(0)
LATENTS = CHANCE.standard_normal((2, 8, 8, 4)).astype(np.float32)
HINTS = CHANCE.random((2, 16, 16, 3)).astype(np.float32)
TIMES = np.array([10.0, 500.0], np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("controls") / "made"
    tiny_pipeline.write(folder)
    return folder


def made(folder, seed, out):
    """A ControlNet of the folder's U-Net; all its weights are drawn, also those that begin at zero."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    control = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 6))
    chance = torch.Generator().manual_seed(seed)
    for weight in control.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=chance)
    control.save_pretrained(out)
    return control


def torched(x):
    return torch.tensor(np.moveaxis(x, -1, 1))


def theirs(folder, controls, scales, context):
    """Returns the prediction of diffusers' U-Net with what the ControlNets add."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    x, time, total = torched(LATENTS), torch.tensor(TIMES), None
    with torch.no_grad():
        for control, scale in zip(controls, scales, strict=True):
            down, middle = control(x, time, context, torched(HINTS), conditioning_scale=scale, return_dict=False)
            found = [*down, middle]
            total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
        added = {"down_block_additional_residuals": total[:-1], "mid_block_additional_residual": total[-1]}
        found = unet(x, time, context, **added)
    return found.sample.numpy().transpose(0, 2, 3, 1)


def sampled(folder, *adapters):
    config, _ = config_files.load_config(tiny.ROOT / "configs" / "stable_diffusion.py")
    config.init_from.pretrained = str(folder)
    trained = pretrained(config, TextRequest([PROMPT]), [read_adapter(adapter) for adapter in adapters])
    return trained.generator.method, trained.model.params, trained.generator.given["tokens"].repeat(2, axis=0)


@pytest.mark.parametrize("scales", [(1.0,), (0.6, 1.0)])
def test_folders_of_diffusers_are_read(scales, folder, tmp_path):
    controls = [made(folder, seed, tmp_path / str(seed)) for seed, _ in enumerate(scales)]
    method, params, tokens = sampled(
        folder, *(f"controlnet:{tmp_path / str(i)}:{scale}" for i, scale in enumerate(scales))
    )
    with jax.default_matmul_precision("highest"):
        context, _ = method.text.apply({"params": params["text"]}, tokens)
        hints = {f"hint_{'hint' if i == 0 else f'hint_{i + 1}'}": HINTS for i in range(len(scales))}
        call = (LATENTS, TIMES)
        found = method.network.apply({"params": params["denoiser"]}, *call, context=context, **hints)
        network, inner = bare_network(method.network), params["denoiser"]
        while set(inner) == {"network", "part"}:
            inner = inner["network"]
        plain = network.apply({"params": inner}, *call, context=context)
    wanted = theirs(folder, controls, scales, torch.tensor(np.asarray(context)))
    assert np.abs(found - plain).max() > 0.05  # what is added is no small thing
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("linear", [False, True])
def test_a_folder_that_is_written_here_is_read_by_diffusers(linear, folder, tmp_path):
    unet = UNet(
        out_channels=4, channels=16, channel_multipliers=(1, 2), blocks=1, attention_levels=(0,), heads=2,
        context_dim=16, norm_groups=8,
    )  # fmt: skip
    network = ControlNet.beside(unet, (4, 6))
    context = CHANCE.standard_normal((2, 12, 16)).astype(np.float32)
    fresh = jax.eval_shape(network.init, jax.random.key(0), LATENTS, TIMES, HINTS, context=context)["params"]
    params = tiny_pipeline.random_params(fresh)
    write_controlnet(tmp_path, params, network, linear)
    control = diffusers.ControlNetModel.from_pretrained(tmp_path)
    with torch.no_grad():
        down, middle = control(
            torched(LATENTS), torch.tensor(TIMES), torch.tensor(context), torched(HINTS), return_dict=False
        )
    with jax.default_matmul_precision("highest"):
        found = network.apply({"params": params}, LATENTS, TIMES, HINTS, context=context)
    for one, other in zip(found, [*down, middle], strict=True):
        assert np.abs(one).max() > 0.1
        np.testing.assert_allclose(one, other.numpy().transpose(0, 2, 3, 1), atol=1e-4)
    again, read = read_controlnet(tmp_path, "--adapter")
    assert again.hint_widths == (4, 6)
    assert jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b), read, params))


def test_a_whole_image_is_that_of_diffusers(folder, tmp_path):
    """By the command line, beside StableDiffusionControlNetPipeline, from the same noise."""
    from jaxgen.command.run import main

    control = made(folder, 0, tmp_path / "control")
    picture = Image.fromarray((255 * HINTS[0]).astype(np.uint8))
    picture.save(tmp_path / "hint.png")
    np.save(tmp_path / "noise.npy", LATENTS[:1])
    steps, scale = 5, 4.0
    words = [
        f"--config={tiny.ROOT / 'configs' / 'stable_diffusion.py'}", f"--config.init_from.pretrained={folder}",
        "--mode=sample", f"--prompt={PROMPT}", f"--hint={tmp_path / 'hint.png'}", f"--noise={tmp_path / 'noise.npy'}",
        f"--adapter=controlnet:{tmp_path / 'control'}:0.8", f"--out={tmp_path / 'out'}",
        f"--config.sampler.steps={steps}", "--config.sampler.name=ddim", f"--config.guidance.scale={scale}",
        "--config.data.resolution=16", 
    ]  # fmt: skip
    assert main(words) == 0
    found = np.load(tmp_path / "out" / "samples.npz")["images"]
    pipe = diffusers.StableDiffusionControlNetPipeline.from_pretrained(folder, controlnet=control, safety_checker=None)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    wanted = pipe(
        PROMPT, image=picture, latents=torched(LATENTS[:1]), num_inference_steps=steps, guidance_scale=scale,
        controlnet_conditioning_scale=0.8, output_type="np",
    ).images  # fmt: skip
    assert np.abs(found / 255 - wanted).max() < 0.01


def test_folders_that_are_refused(folder, tmp_path):
    made(folder, 0, tmp_path / "control")
    file = tmp_path / "control" / "config.json"
    sound = json.loads(file.read_text())
    for entry, value, said in (
        ("controlnet_conditioning_channel_order", "bgr", "only 'rgb'"),
        ("global_pool_conditions", True, "only False"),
        ("_class_name", "UNet2DConditionModel", "needs a ControlNetModel"),
        ("norm_eps", 1e-3, "belongs to another model"),
    ):
        file.write_text(json.dumps({**sound, entry: value}))
        with pytest.raises(UserError, match=said):
            sampled(folder, f"controlnet:{tmp_path / 'control'}")
    with pytest.raises(UserError, match="there is no such folder"):
        sampled(folder, f"controlnet:{tmp_path / 'missing'}")
