"""Bad input ends in status 2 and one sentence that names the thing, and what was there stays as it was."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import subprocess

import numpy as np
import pytest
import tiny
from PIL import Image

# name of the case: (what is added to a sound command, what the sentence names)
ARGUMENTS = {
    "misspelt shared key": (["--config.train.batch_sise=8"], "'batch_size'"),
    "misspelt section": (["--config.trian.batch_size=8"], "trian"),
    "section as a value": (["--config.train=5"], "config.train"),
    "key below a value": (["--config.seed.low=5"], "seed.low"),
    "word for a number": (["--config.train.batch_size=many"], "config.train.batch_size"),
    "fraction for a count": (["--config.train.batch_size=2.5"], "config.train.batch_size"),
    "no batch": (["--config.train.batch_size=0"], "config.train.batch_size"),
    "negative batch": (["--config.train.batch_size=-4"], "config.train.batch_size"),
    "no length": (["--config.train.total_images=0"], "config.train.total_images"),
    "endless": (["--config.train.total_images=5000000000"], "config.train.total_images"),
    "negative cadence": (["--config.train.checkpoint_every_images=-1"], "config.train.checkpoint_every_images"),
    "negative seed": (["--config.seed=-1"], "config.seed"),
    "decay of one": (["--config.train.ema_decay=1.0"], "config.train.ema_decay"),
    "no evaluation batch": (["--config.evaluate.batch_size=0"], "config.evaluate.batch_size"),
    "too few samples": (["--config.evaluate.num=1"], "config.evaluate.num"),
    "negative crop": (["--config.data.crop=-1"], "config.data.crop"),
    "no pixels": (["--config.data.resolution=0"], "config.data.resolution"),
    "best of nothing": (["--config.train.keep_best=1"], "config.train.best_metric"),
    "accumulation that does not divide": (["--config.train.accumulate=3"], "config.train.accumulate"),
    "mesh that does not divide": (["--config.mesh.data=3"], "config.mesh.data=3"),
    "mesh larger than the machine": (["--config.mesh.data=64"], "config.mesh.data=64"),
    "misspelt method": (["--config.method.name=dppm"], "'ddpm'"),
    "unknown package": (["--config.method.name=nowhere.at_all:Thing"], "nowhere.at_all"),
    "misspelt key of the method": (["--config.method.predicton=v"], "'prediction_type'"),
    "misspelt key of the network": (["--config.method.network.chanels=8"], "'channels'"),
    "word for the network's number": (["--config.method.network.channels=wide"], "config.method.network.channels"),
    "unknown prediction": (["--config.method.prediction_type=noise"], "config.method.prediction_type"),
    "groups that do not divide": (["--config.method.network.norm_groups=3"], "norm_groups"),
    "misspelt sampler": (["--config.sampler.name=ddimm"], "'ddim'"),
    "misspelt key of the sampler": (["--config.sampler.step=4"], "'steps'"),
    "more steps than the schedule": (["--config.sampler.steps=2000"], "config.sampler.steps"),
    "eta out of range": (["--config.sampler.eta=2.0"], "config.sampler.eta"),
    "misspelt optimiser": (["--config.optimizer.name=adamww"], "'adamw'"),
    "misspelt key of the optimiser": (["--config.optimizer.weight_decai=0.1"], "'weight_decay'"),
    "negative learning rate": (["--config.optimizer.learning_rate=-1.0"], "learning_rate"),
    "unknown decay": (["--config.optimizer.decay=cosin"], "'cosine'"),
    "optimiser of no group": (["--config.optimizers.discriminator.learning_rate=0.1"], "discriminator"),
    "misspelt metric": (["--config.evaluate.metrics=('fretchet',)"], "'frechet'"),
    "misspelt feature network": (["--config.evaluate.network=digitz"], "'digits'"),
    "network as a metric": (["--config.evaluate.metrics=('inception',)"], "config.evaluate.network='inception'"),
    "metric of pairs": (["--config.evaluate.metrics=('sifid',)"], "python -m jaxgen.metrics A B --metrics=sifid"),
    "fid of another network": (["--config.evaluate.metrics=('fid',)"], "the number is 'frechet'"),
    "misspelt source": (["--config.data.source=digitz"], "'digits'"),
    "source without its path": (["--config.data.source=folder"], "'folder'"),
    "misspelt split": (["--config.data.split=trian"], "'train'"),
    "misspelt held-out split": (["--config.data.eval_split=tets"], "'test'"),
    "too few classes": (["--config.data.num_classes=3"], "config.data.num_classes"),
    "colour asked of grey": (["--config.data.channels=3"], "config.data.channels"),
    "two channels": (["--config.data.channels=2"], "config.data.channels"),
    "unprepared data": (["--config.data.source=tfds:mnist", "--config.data.root=nowhere"], "tfds:mnist"),
    "weights from no run": (["--config.init_from.denoiser=nowhere"], "config.init_from.denoiser"),
    "unknown flag": (["--wrokdir=x"], "'workdir'"),
    "word without dashes": (["train"], "'train'"),
    "misspelt mode": (["--mode=trian"], "'train'"),
    "word for a count": (["--num=many"], "--num"),
    "no images": (["--mode=sample", "--num=0", "--out=x"], "--num"),
    "no place for images": (["--mode=sample"], "--out"),
    "negative seed of samples": (["--mode=sample", "--out=x", "--seed=-1"], "--seed=-1"),
    "labels beyond the images": (["--mode=sample", "--out=x", "--labels=0,1,2", "--num=2"], "--labels names (3)"),
    "best checkpoints that are not kept": (["--config.train.best_metric=x"], "config.train.keep_best is 0"),
    "best by an unknown number": (
        ["--config.train.keep_best=1", "--config.train.best_metric=denoising_los",
         "--config.train.evaluate_every_images=64"], "'denoising_loss'"),
    "best by a number that comes at the end only": (
        ["--config.train.keep_best=1", "--config.train.best_metric=denoising_loss"], "need evaluate_every_images"),
    "weights of no network": (["--config.evaluate.network=", "--config.evaluate.weights=x"], "config.evaluate.weights"),
    "labels that are words": (["--mode=sample", "--out=x", "--labels=three"], "three"),
    "sampling before training": (["--mode=sample", "--out=x"], "--mode=train"),
    "evaluation before training": (["--mode=evaluate"], "--mode=train"),
}  # fmt: skip


@pytest.fixture
def complaint(capsys):
    """Runs a command that must be refused; gives the one line it says."""

    def refused(*arguments: str | os.PathLike) -> str:
        status = tiny.call(*arguments)
        assert status == 2
        return tiny.Result(status, *capsys.readouterr()).complaint

    return refused


def snapshot(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {os.fspath(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(case, config, tmp_path, complaint):
    arguments, named = ARGUMENTS[case]
    workdir = tmp_path / "run"
    assert named in complaint(f"--config={config}", f"--workdir={workdir}", *arguments)
    assert not (workdir / "checkpoints").exists() or not any((workdir / "checkpoints").iterdir())


def test_command_without_its_parts(config, tmp_path, complaint):
    assert "--workdir" in complaint(f"--config={config}")
    assert "--config" in complaint(f"--workdir={tmp_path / 'run'}")
    assert "tniy.py" in complaint(f"--config={config.with_name('tniy.py')}", f"--workdir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("def get_config(:\n", "SyntaxError"),
        ("import no_such_thing\n", "no_such_thing"),
        ("def get_config():\n    return 1 / 0\n", "ZeroDivisionError"),
        ("x = 1\n", "get_config"),
        ("def get_config():\n    return {}['sede']\n", "sede"),
        ("def get_config():\n    return 3\n", "ConfigDict"),
    ],
)
def test_broken_config_file(text, named, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(text)
    said = tiny.spawn(f"--config={path}", f"--workdir={tmp_path / 'run'}")  # modules live as long as a process
    assert said.status == 2
    assert named in said.complaint and "broken.py" in said.complaint
    assert not (tmp_path / "run").exists()


def colour_folder(folder: pathlib.Path, count: int = 40) -> pathlib.Path:
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    return folder


def empty(folder):
    folder.mkdir()
    return f"folder:{folder}", "empty"


def absent(folder):
    return f"folder:{folder}", os.fspath(folder)


def truncated(folder):
    file = colour_folder(folder) / "07.png"
    file.write_bytes(file.read_bytes()[:100])
    return f"folder:{folder}", "07.png"


def text_as_image(folder):
    (colour_folder(folder) / "07.png").write_text("not an image")
    return f"folder:{folder}", "07.png"


def grey_among_colour(folder):
    Image.new("L", (8, 8)).save(colour_folder(folder) / "07.png")
    return f"folder:{folder}", "07.png"


def caption_missing(folder):
    lines = [json.dumps({"file": f"{i:02d}.png", "caption": "a thing"}) for i in range(40) if i != 7]
    (colour_folder(folder) / "captions.jsonl").write_text("\n".join(lines))
    return f"folder:{folder}", "07.png"


def caption_broken(folder):
    (colour_folder(folder) / "captions.jsonl").write_text('{"file": "00.png"}\n')
    return f"folder:{folder}", "captions.jsonl"


def _npz(folder, **arrays):
    folder.mkdir()
    np.savez(folder / "data.npz", **arrays)
    return f"npz:{folder / 'data.npz'}"


def nan_in_npz(folder):
    images = np.full((40, 8, 8, 3), 0.5, np.float32)
    images[7, 0, 0, 0] = np.nan
    return _npz(folder, images=images), "the first is image 7"


def integers_in_npz(folder):
    return _npz(folder, images=np.zeros((40, 8, 8, 3), np.int64)), "int64"


def no_images_in_npz(folder):
    return _npz(folder, pictures=np.zeros((40, 8, 8, 3), np.uint8)), "'images'"


def truncated_npz(folder):
    source = _npz(folder, images=np.zeros((40, 8, 8, 3), np.uint8))
    (folder / "data.npz").write_bytes((folder / "data.npz").read_bytes()[:500])
    return source, "data.npz"


SOURCES = [
    empty, absent, truncated, text_as_image, grey_among_colour, caption_missing, caption_broken, nan_in_npz,
    integers_in_npz, no_images_in_npz, truncated_npz,
]  # fmt: skip


@pytest.mark.parametrize("make", SOURCES, ids=lambda make: make.__name__)
def test_data(make, config, tmp_path, complaint):
    source, named = make(tmp_path / "data")
    shape = ["--config.data.channels=3", "--config.method.network.out_channels=3", "--config.evaluate.metrics=()"]
    assert named in complaint(
        f"--config={config}", f"--workdir={tmp_path / 'run'}", f"--config.data.source={source}", *shape
    )


def test_workdir_that_cannot_be(config, tmp_path, complaint):
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "run", pathlib.Path("/proc/run"), pathlib.Path("/sys/run")):
        assert os.fspath(workdir) in complaint(f"--config={config}", f"--workdir={workdir}")


def truncate_all(folder: pathlib.Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:3])


def cut_config(run):
    (run / "config.json").write_text('{"data": {')
    return [], "config.json"


def foreign_config(run):
    (run / "config.json").write_text("[]")
    return [], "config.json"


def lost_config(run):
    (run / "config.json").unlink()
    return [], "config.json"


def cut_checkpoints(run):
    truncate_all(run / "checkpoints")
    return [], "No checkpoint"


def lost_parameters(run):
    for folder in (run / "checkpoints").glob("*/params"):
        shutil.rmtree(folder)
    return [], "No checkpoint"


def cut_history(run):
    path = run / "metrics.jsonl"
    path.write_text("{\n" + path.read_text())
    return [], "metrics.jsonl, line 1"


def cut_record(run):
    (run / "run.json").write_text("{")
    return [], "run.json"


def cut_scores(run):
    (run / "metrics.json").write_text("{")
    return [], "metrics.json"


def scores_of_another_type(run):
    (run / "metrics.json").write_text('{"_meta": []}')
    return [], "metrics.json: '_meta' is []"


def labels_for_none(run):
    return ["--mode=sample", f"--out={run.parent / 'out'}", "--labels=3"], "--labels"


def width(run):
    return ["--config.method.network.channels=16"], "config.method.network.channels was 8 and is 16"


def mesh(run):
    return ["--config.mesh.data=3", "--config.train.total_images=512"], "config.mesh.data=3"


RUNS = [
    cut_config, foreign_config, lost_config, cut_checkpoints, lost_parameters, cut_history, cut_record, cut_scores,
    scores_of_another_type, labels_for_none, width, mesh,
]  # fmt: skip


@pytest.mark.parametrize("spoil", RUNS, ids=lambda spoil: spoil.__name__)
def test_finished_run(spoil, config, run, complaint):
    arguments, named = spoil(run)
    before = snapshot(run)
    assert named in complaint(f"--config={config}", f"--workdir={run}", *arguments)
    assert snapshot(run) == before


def test_run_of_another_method(run, complaint):
    before = snapshot(run)
    said = complaint("--config=configs/classifier_digits.py", f"--workdir={run}")
    assert "config.method.name was 'ddpm' and is 'classifier'" in said
    assert snapshot(run) == before


@pytest.mark.parametrize("name", ["discriminator", "denoiser"])
def test_weights_of_an_unknown_group(name, config, trained, tmp_path, complaint):
    said = complaint(
        f"--config={config}", f"--workdir={tmp_path / 'run'}", f"--config.init_from.{name}={trained}#discriminator"
    )
    assert "'discriminator'" in said and f"config.init_from.{name}" in said


def test_weights_of_another_shape(config, trained, tmp_path, complaint):
    said = complaint(
        f"--config={config}",
        f"--workdir={tmp_path / 'run'}",
        f"--config.init_from.denoiser={trained}",
        "--config.method.network.channels=16",
    )
    assert "config.init_from.denoiser" in said and "shape" in said


@pytest.mark.parametrize("labels", ["10", "-1", "0,99", "9223372036854775808"])
def test_labels_that_are_no_classes(labels, labelled, tmp_path, complaint):
    said = complaint("--mode=sample", f"--workdir={labelled}", f"--out={tmp_path / 'out'}", f"--labels={labels}")
    assert "from 0 to 9" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_learning_rate_that_explodes(config, tmp_path, complaint):
    workdir = tmp_path / "run"
    said = complaint(
        f"--config={config}",
        f"--workdir={workdir}",
        "--config.optimizer.learning_rate=1e38",
        "--config.optimizer.warmup_images=0",
        "--config.train.total_images=6400",
        "--config.train.sample_every_images=0",
        "--config.train.max_nonfinite_updates=3",
    )
    assert "'denoise'" in said and "learning rate" in said and os.fspath(workdir) in said
    assert list((workdir / "checkpoints").glob("[0-9]*/params"))


@pytest.mark.slow
def test_disk_that_is_full(config, run):
    """A limit on a file's size stands for a full disk: the checkpoints before it stay, and the run goes on later."""
    before = snapshot(run / "checkpoints")
    limit = 20_000  # less than the parameters, more than the notes

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    longer = [f"--config={config}", f"--workdir={run}", "--config.train.total_images=512"]
    environment = tiny.environment(JAX_ENABLE_COMPILATION_CACHE="false")
    done = subprocess.run(
        tiny.command(*longer), env=environment, cwd=tiny.ROOT, preexec_fn=limited, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "larger than is allowed" in tiny.Result(done.returncode, done.stdout, done.stderr).complaint
    after = snapshot(run / "checkpoints")
    assert {name: after.get(name) for name in before} == before
    assert tiny.call(*longer) == 0
