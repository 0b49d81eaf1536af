"""Temporal layers: folders of diffusers' `MotionAdapter` are read here, and ours there, with equal predictions."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import tiny
import tiny_pipeline

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
import diffusers  # noqa: E402

from jaxgen.config import files as config_files  # noqa: E402
from jaxgen.errors import UserError  # noqa: E402
from jaxgen.interop.adapters.motion import read_motion, write_motion  # noqa: E402
from jaxgen.methods.grafts.base import bare_network, bare_params  # noqa: E402
from jaxgen.networks.unet import UNet  # noqa: E402
from jaxgen.sampling.grafts.requests import read_adapter  # noqa: E402
from jaxgen.sampling.prompts import TextRequest  # noqa: E402
from jaxgen.sampling.restore import pretrained  # noqa: E402

pytestmark = pytest.mark.parity

FRAMES, PROMPT = 3, "a red cat"
CHANCE = np.random.default_rng(0)
VIDEOS = CHANCE.standard_normal((2, FRAMES, 8, 8, 4)).astype(np.float32)
OPTIONS = dict(block_out_channels=(16, 32), motion_layers_per_block=1, motion_num_attention_heads=4,
               motion_norm_num_groups=8, motion_max_seq_length=6)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion") / "base"
    tiny_pipeline.write(folder)
    return folder


def made(out, **options):
    """A folder of temporal layers whose weights are all drawn, also those that begin at zero."""
    adapter = diffusers.MotionAdapter(**{**OPTIONS, **options})
    chance = torch.Generator().manual_seed(0)
    for weight in adapter.parameters():
        weight.data += 0.2 * torch.randn(weight.shape, generator=chance)
    adapter.save_pretrained(out)
    return adapter


def sampled(folder, *adapters):
    config, _ = config_files.load_config(tiny.ROOT / "configs" / "stable_diffusion.py")
    config.init_from.pretrained = str(folder)
    trained = pretrained(config, TextRequest([PROMPT]), [read_adapter(adapter) for adapter in adapters])
    return trained.generator.method, trained.model.params, trained.generator.given["tokens"].repeat(2, axis=0)


def theirs(folder, adapter, context):
    """Returns the prediction of diffusers' `UNetMotionModel`, with one time and one text for a video."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    moving = diffusers.UNetMotionModel.from_unet2d(unet, adapter).eval()
    x = torch.tensor(VIDEOS.transpose(0, 4, 1, 2, 3))  # [B, C, F, H, W]
    with torch.no_grad():
        found = moving(x, torch.tensor([300.0, 300.0]), context.repeat_interleave(FRAMES, 0)).sample
    return found.numpy().transpose(0, 2, 3, 4, 1)


@pytest.mark.parametrize("middle", [True, False])
def test_folders_of_diffusers_are_read(middle, folder, tmp_path):
    adapter = made(tmp_path / "motion", use_motion_mid_block=middle)
    method, params, tokens = sampled(folder, f"motion:{tmp_path / 'motion'}:{FRAMES}")
    assert method.gives == "video" and method.shape == (FRAMES, 8, 8, 4)
    with jax.default_matmul_precision("highest"):
        context, _ = method.text.apply({"params": params["text"]}, tokens)
        call = (VIDEOS.reshape(-1, 8, 8, 4), np.full(2 * FRAMES, 300.0, np.float32))
        per_frame = jax.numpy.repeat(context, FRAMES, axis=0)
        found = method.network.apply({"params": params["denoiser"]}, *call, context=per_frame)
        bare = {"params": bare_params(params["denoiser"])}
        plain = bare_network(method.network).apply(bare, *call, context=per_frame)
    assert np.abs(found - plain).max() > 0.05  # what the layers do is no small thing
    wanted = theirs(folder, adapter, torch.tensor(np.asarray(context)))
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted, atol=1e-4)


def test_a_folder_that_is_written_here_is_read_by_diffusers(folder, tmp_path):
    first = made(tmp_path / "first")
    unet = UNet(channels=16, channel_multipliers=(1, 2), blocks=1, attention_levels=(0,), norm_groups=8)
    options, params = read_motion(tmp_path / "first", "--adapter", unet)
    assert options == (4, 1, True, 6)
    write_motion(tmp_path / "second", params, unet, options)
    second = diffusers.MotionAdapter.from_pretrained(tmp_path / "second")
    assert {name: second.config[name] for name in OPTIONS} == {**OPTIONS, "block_out_channels": [16, 32]}
    again = second.state_dict()
    assert again.keys() == first.state_dict().keys()
    for name, tensor in first.state_dict().items():
        np.testing.assert_allclose(again[name], tensor, atol=1e-6 if "pos_embed" in name else 0)


def test_folders_that_do_not_fit_are_refused(folder, tmp_path):
    unet = UNet(channels=16, channel_multipliers=(1, 2), blocks=1, attention_levels=(0,), norm_groups=8)
    made(tmp_path / "wide", block_out_channels=(32, 32))
    made(tmp_path / "heads", motion_num_attention_heads=(4, 8))
    for name, told in {
        "wide": r"block_out_channels=\(32, 32\), and that of this model has \(16, 32\)",
        "heads": "motion_num_attention_heads=.* only one number for all blocks",
        "none": "there is no such folder",
    }.items():
        with pytest.raises(UserError, match=told):
            read_motion(tmp_path / name, "--adapter=motion", unet)
    config = json.loads((folder / "unet" / "config.json").read_text())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is of 'UNet2DConditionModel', and --adapter=motion needs a MotionAdapter"):
        read_motion(tmp_path / "other", "--adapter=motion", unet)
    with pytest.raises(UserError, match="positions=0 have no file"):
        write_motion(tmp_path / "out", {}, unet, read_motion(made_small(tmp_path), "", unet)[0]._replace(positions=0))


def made_small(tmp_path):
    made(tmp_path / "small")
    return tmp_path / "small"
