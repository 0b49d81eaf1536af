"""Every shipped config: shrunk, trained for two steps, resumed, evaluated and sampled from; or traced as it is."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
import pytest
import tiny

from jaxgen.config import check, image_shape
from jaxgen.config import files as config_files
from jaxgen.data.corruptions import shapes_of
from jaxgen.methods.cascade import Cascade, ChainStage
from jaxgen.planning.programs import Job
from jaxgen.planning.topology import devices
from jaxgen.runs.setup import make_corruptions, make_method
from jaxgen.runs.workdir import stored_config

# tested apart: two need a folder of weights (test_stable_diffusion.py, test_finetune_folder.py), cascades their stages,
# one sets of its user's data (test_few_shot.py), two give masks (test_segmentation_run.py), two learn from a user's
# layouts (test_layouts_run.py), six tune a run (test_tuning.py, test_controls.py, test_glide_run.py), one makes videos
# of it (test_motion_run.py), and unCLIP's begin with a CLIP (test_unclip_run.py)
APART = (
    "clip_shapes.py",  # words of its own data (test_captioner_run.py; the door `pairs` of test_doors.py)
    "clip_shapes_noised.py",  # goes on from another run (test_captioner_run.py)
    "stable_diffusion.py",
    "stable_diffusion_finetune.py",
    "cascade_digits.py",
    "cascade_shapes.py",
    "dataset_gan_shapes.py",  # on codes of a run (tests/editing/test_dataset_gan.py)
    "cyclegan_shapes.py",  # its rate falls behind 20,000 images (test_translation_run.py, test_doors.py)
    "fsdm_digits.py",  # trained in test_few_shot.py, as is fsdm_omniglot.py traced
    "fsdm_omniglot.py",
    "glide_shapes_64.py",
    "glide_shapes_clip.py",
    "glide_shapes_inpainting.py",
    "imagen_shapes.py",
    "motion_shapes.py",
    "pix2pix_camvid.py",  # maps of a user's file, as pix2pixhd_scenes.py reads them
    "pix2pix_shapes.py",  # pairs of its own data (the door `pix2pix` of test_doors.py)
    "pix2pixhd_scenes.py",  # maps of its own data, as the next one and the door `layouts` of test_doors.py
    "spade_regions.py",
    "pix2pix_emoji.py",  # pairs of a user's file (test_doors.py)
    "segmentation_nuclei.py",
    "segmentation_shapes.py",
    "segmenter_camvid.py",
    "singan_image.py",  # one picture of the user's (test_singan_run.py)
    "spade_camvid.py",
    "textual_inversion_concepts.py",
    "unclip_decoder_shapes.py",
    "unclip_prior_shapes.py",
    "unclip_shapes.py",
    "unclip_shapes_64.py",
    "unclip_upsampler_shapes.py",
    "dreambooth_concepts.py",
    "custom_diffusion_concepts.py",
    "lora_concepts.py",
    "control_qr.py",  # one more ControlNet (test_controls.py)
    "control_shapes.py",
)
# too large to be trained here, however shrunk: millions of parameters that learn, as published
LARGE = {"dit_xl_2.py": 675, "imagen_256.py": 1246, "stable_diffusion_train.py": 860, "stylegan2_ffhq.py": 59}
# of the parts of another that is trained here, or its first stage
TWINS = (
    "acgan_digits.py",
    "acgan_fashion_mnist.py",
    "adm_digits.py",  # guided sampling is run in test_guided_sampling.py
    "autoregressive_shapes.py",
    "cascade_digits_base.py",  # trained with its cascade, below, as is the next one
    "cascade_digits_upsampler.py",
    "cascade_shapes_32.py",
    "cascade_shapes_64.py",
    "cascade_shapes_base.py",
    "cgan_digits.py",
    "classifier_concepts.py",
    "classifier_emoji.py",
    "classifier_fashion_mnist.py",
    "classifier_scenes.py",
    "classifier_shapes.py",
    "classifier_shapes_tower.py",
    "classifier_solids.py",
    "clip_solids.py",  # one more CLIP (test_captioner_run.py)
    "dcgan_fashion_mnist.py",
    "ddpm_digits.py",
    "ddpm_digits_classes.py",
    "ddpm_fashion_mnist.py",
    "ddpm_fashion_mnist_classes.py",
    "ddpm_mnist.py",
    "ddpm_nuclei.py",
    "ddpm_photos.py",
    "ddpm_scenes.py",
    "ddpm_shapes.py",
    "ddpm_shapes_64.py",
    "ddpm_shapes_classes.py",
    "ebgan_digits.py",
    "edm_digits.py",
    "flow_digits.py",
    "gan_digits.py",  # its classifier of digits takes minutes to train without optimisation; GANs: the door `games`
    "gan_grid25.py",
    "glide_shapes.py",
    "glide_shapes_upsampler.py",
    "hinge_gan_digits.py",
    "imagen_shapes_32.py",  # an Imagen is trained in test_imagen_run.py
    "imagen_shapes_64.py",
    "imagen_shapes_base.py",
    "infogan_digits.py",
    "kl_autoencoder_concepts.py",
    "kl_autoencoder_digits.py",
    "kl_autoencoder_emoji.py",
    "kl_autoencoder_fashion_mnist.py",
    "kl_autoencoder_scenes.py",
    "kl_autoencoder_shapes.py",
    "latent_diffusion_concepts.py",
    "latent_diffusion_digits.py",  # trained in test_latent_stages.py
    "latent_diffusion_emoji.py",
    "latent_diffusion_fashion_mnist.py",
    "latent_diffusion_shapes.py",  # texts and latents learn together in the door `pretrained` of test_doors.py
    "lsgan_digits.py",
    "mae_nuclei.py",
    "mae_shapes.py",  # trained in test_segmentation_run.py
    "msgan_digits.py",
    "noisy_classifier_digits.py",
    "palette_emoji.py",
    "palette_shapes.py",
    "progan_shapes.py",  # its stages: the door `growing` (test_doors.py)
    "regression_emoji.py",
    "regression_fashion_mnist.py",
    "segmenter_nuclei.py",
    "segmenter_shapes.py",
    "sr3_emoji.py",
    "sr3_fashion_mnist.py",
    "stylegan2_cifar.py",
    "stylegan2_shapes.py",  # trained tiny in test_doors.py
    "stylegan_shapes.py",
    "triplane_solids.py",  # its gradients: test_triplane_gan.py
    "vae_digits.py",
    "vae_digits_classes.py",
    "vae_fashion_mnist.py",
    "vae_mnist_plane.py",
    "vq_autoencoder_shapes.py",
    "wgan_digits.py",
    "wgan_gp_digits.py",
    "wgan_gp_fashion_mnist.py",
)
# another config begins with its run: it is trained, evaluated and sampled with it
BEGUN = ("autoencoder_digits.py",)
CONFIGS = sorted({p.name for p in (tiny.ROOT / "configs").glob("[!_]*.py")} - {*APART, *LARGE, *TWINS, *BEGUN})


def stand_in(folder, config):
    """An npz of noise in the shape of data that are not installed, or slow to draw."""
    height, width, channels = image_shape(config)
    chance, arrays = np.random.default_rng(0), {}
    for split in {config.data.split, config.data.eval_split}:
        arrays[f"{split}_labels"] = np.arange(40, dtype=np.int32) % max(1, config.data.num_classes)
        for entry in ("images", *config.data.rename.values()):
            arrays[f"{split}_{entry}"] = chance.integers(0, 256, (40, height, width, channels), np.uint8)
    np.savez(folder / "data.npz", **arrays)
    return f"--config.data.source=npz:{folder / 'data.npz'}"


def shrunk(config):
    """Overrides that make any config small; how its networks are built stays."""
    batch = 8 * config.train.accumulate
    yield f"--config.train.batch_size={batch}"
    yield f"--config.train.total_images={2 * batch}"
    yield f"--config.train.log_every_images={batch}"
    yield f"--config.train.checkpoint_every_images={batch}"
    yield "--config.train.sample_every_images=0"
    yield "--config.evaluate.num=16"
    yield "--config.evaluate.batch_size=8"
    if "steps" in config.sampler:
        yield f"--config.sampler.steps={min(2, config.sampler.steps)}"
    network = config.method.get("network", {})
    if "channels" in network:
        yield f"--config.method.network.channels={network.get('norm_groups', 8)}"
    if "blocks" in network:
        levels = network.blocks if isinstance(network.blocks, tuple) else ()
        yield f"--config.method.network.blocks={(1,) * len(levels) or 1}"
    if "depth" in network:
        yield "--config.method.network.depth=1"


def begun(folder, config):
    """The runs that a config starts from, `runs/<another config>`, shrunk and trained; overrides that name them."""
    for group, source in config.init_from.items():
        if ":" in source:  # weights that come with the package
            continue
        run, _, there = source.partition("#")
        name = pathlib.PurePath(run).name
        other, _ = config_files.load_config(tiny.ROOT / "configs" / f"{name}.py")
        if not (folder / name).exists():
            assert tiny.call(*command_of(folder, name, other)) == 0
        yield f"--config.init_from.{group}={folder / name}{'#' if there else ''}{there}"


def command_of(folder, name, config):
    """The command line of a config, shrunk, in `folder/name`."""
    (folder / f"data_{name}").mkdir(parents=True)
    command = [f"--config=configs/{name}.py", f"--workdir={folder / name}", *shrunk(config), *begun(folder, config)]
    if config.data.source.startswith(("tfds:", "folder:", "npz:", "shapes", "scenes")):
        command.append(stand_in(folder / f"data_{name}", config))
    return command


# these run by default; the others take longer to compile, or differ from them in what other tests cover
QUICK = ("classifier_digits.py",)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CONFIGS])
def test_config(name, tmp_path, capsys):
    config, summary = config_files.load_config(tiny.ROOT / "configs" / name)
    assert summary
    workdir = tmp_path / name.removesuffix(".py")
    command = command_of(tmp_path, workdir.name, config)
    assert tiny.call(*command) == 0
    check_run(config, workdir, capsys)
    for other in BEGUN:
        if (tmp_path / other.removesuffix(".py")).exists():
            began, _ = config_files.load_config(tiny.ROOT / "configs" / other)
            check_run(began, tmp_path / other.removesuffix(".py"), capsys)


def test_another_begins_with_each_run_that_is_not_trained_alone():
    sources = [config_files.load_config(tiny.ROOT / "configs" / name)[0].init_from for name in CONFIGS]
    assert {f"runs/{name.removesuffix('.py')}" for name in BEGUN} <= {
        run.partition("#")[0] for source in sources for run in source.values()
    }


def check_run(config, workdir, capsys):
    """Its numbers are finite, and it is sampled or says why it is not."""
    numbers = json.loads((workdir / "metrics.json").read_text())
    for metric, entry in numbers.items():
        assert metric == "_meta" or (np.isfinite(entry["value"]) and entry["n"] > 0 and entry["reference"])
    assert (workdir / "report.html").exists()
    out = workdir.parent / f"out_{workdir.name}"
    capsys.readouterr()
    assert tiny.call(f"--workdir={workdir}", "--mode=sample", "--num=3", f"--out={out}") in (0, 2)
    said = capsys.readouterr().err
    if (out / "samples.npz").exists():
        drawn = np.load(out / "samples.npz")
        method = make_method(stored_config(workdir))  # which names the runs that it began with
        if method.samples_images:
            assert drawn["images"].shape == (3, *image_shape(config))
        else:
            assert len(drawn[method.gives]) == 3
    else:
        assert "makes no images" in said


# one of each family is traced by CI, the others each night
FIRST = (
    "acgan_digits.py", "adm_digits.py", "autoregressive_shapes.py", "cascade_shapes_base.py", "classifier_shapes.py",
    "ddpm_digits.py", "dit_xl_2.py", "edm_digits.py", "flow_digits.py", "gan_digits.py", "glide_shapes.py",
    "imagen_shapes_base.py", "kl_autoencoder_digits.py", "latent_diffusion_digits.py", "mae_shapes.py",
    "noisy_classifier_digits.py", "palette_shapes.py", "progan_shapes.py", "sr3_fashion_mnist.py", "stylegan_shapes.py",
    "stylegan2_cifar.py", "triplane_solids.py", "vae_digits.py", "vq_autoencoder_shapes.py", "wgan_gp_digits.py",
)  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in FIRST else pytest.mark.nightly) for n in (*TWINS, *LARGE)],
)
def test_update_and_sampler_are_traced(name):
    config, summary = config_files.load_config(tiny.ROOT / "configs" / name)
    assert summary
    check(config)
    job = Job(config, devices("cpu:8"))
    updated, metrics = job.trace_update().out_info
    assert jax.tree.map(lambda x: (x.shape, x.dtype), (updated.params, updated.ema)) == jax.tree.map(
        lambda x: (x.shape, x.dtype), (job.state.params, job.state.ema)
    )
    assert metrics
    if job.method.has_sampler:
        drawn, count = job.trace_sampler().out_info, config.evaluate.batch_size
        if job.method.samples_images:
            assert drawn["images"].shape == (count, *image_shape(config))
        else:
            assert drawn[job.method.gives].shape[0] == count
    if name in LARGE:
        learned = sum(leaf.size for leaf in jax.tree.leaves(job.state.params))
        assert round(learned / 1e6) == LARGE[name]
        assert set(job.frozen) == {*config.init_from} - {"dtype"} == set(job.method.required_groups)
        assert len(job.absent) == len(job.frozen)


@pytest.mark.nightly
def test_a_cascade_is_sampled_and_evaluated_from_the_runs_of_its_stages(tmp_path, capsys):
    config, _ = config_files.load_config(tiny.ROOT / "configs" / "cascade_digits.py")
    names = [pathlib.PurePath(run).name for run in config.init_from.pretrained]
    for name in names:
        other, _ = config_files.load_config(tiny.ROOT / "configs" / f"{name}.py")
        assert tiny.call(*command_of(tmp_path, name, other), "--config.evaluate.at_end=False") == 0
    command = [
        "--config=configs/cascade_digits.py",
        f"--config.init_from.pretrained={tuple(str(tmp_path / name) for name in names)}",
        "--config.evaluate.batch_size=8",
        "--config.method.overrides.stage_0.sampler.steps=2",
        "--config.method.overrides.stage_1.sampler.steps=3",
    ]
    capsys.readouterr()
    assert tiny.call(*command, "--mode=sample", "--labels=3,7", "--num=4", f"--out={tmp_path / 'out'}") == 0
    drawn = np.load(tmp_path / "out" / "samples.npz")
    assert drawn["images"].shape == (4, 8, 8, 1) and drawn["stage_0"].shape == (4, 4, 4, 1)
    assert list(drawn["labels"]) == [3, 7, 3, 7]
    assert tiny.call(*command, "--mode=evaluate", "--config.evaluate.num=16") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert {"label_accuracy", "frechet_digits"} <= set(numbers)


@pytest.mark.parametrize(
    ("name", "condition", "sizes"),
    [
        ("cascade_shapes", "label", [16, 32, 64]),
        ("glide_shapes_64", "tokens", [32, 64]),
        ("imagen_shapes", "tokens", [16, 32]),
    ],
)
def test_the_stages_of_the_cascades_of_shapes_fit_each_other(name, condition, sizes):
    config, _ = config_files.load_config(tiny.ROOT / "configs" / f"{name}.py")
    check(config)
    stages = []
    for run in config.init_from.pretrained:
        own, _ = config_files.load_config(tiny.ROOT / "configs" / f"{pathlib.PurePath(run).name}.py")
        made = shapes_of(make_corruptions(own), image_shape(own))
        told = {"label": ((), np.dtype(np.int32)), "tokens": ((16,), np.dtype(np.int32))}
        entries = {condition: told[condition], **made}
        stages.append(ChainStage(make_method(own), run, image_shape(own), entries, tuple(made)))
    chain = Cascade(tuple(stages))
    links = ["", *["condition"] * (len(sizes) - 1)]
    assert [chain.link(i) for i in range(len(sizes))] == links and chain.conditions == (condition,)
    assert [stage.image_shape[0] for stage in stages] == sizes and chain.image_shape == image_shape(config)
