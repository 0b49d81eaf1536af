"""A CLIP with a captioner as a user has it: trained, evaluated, asked for captions, written out, and built upon."""

from __future__ import annotations

import json
import types

import numpy as np
import pytest
import tiny
from etils import epath
from PIL import Image

from jaxgen.data import open_source
from jaxgen.data.sources.caption_shapes import PHRASE_TOKENIZER
from jaxgen.sampling.inputs import Inputs
from jaxgen.sampling.kinds import Tokens
from jaxgen.sampling.outputs import write_captions
from jaxgen.sampling.samples import Samples

SMALL = (
    "--config.train.batch_size=8", "--config.train.log_every_images=8", "--config.train.total_images=24",
    "--config.train.checkpoint_every_images=8", "--config.train.tensorboard=False", "--config.evaluate.at_end=False",
    "--config.evaluate.num=16", "--config.evaluate.real=16", "--config.evaluate.batch_size=8",
    "--config.method.image.width=16", "--config.method.image.depth=1", "--config.method.image.heads=2",
    "--config.method.text.width=16", "--config.method.text.depth=1", "--config.method.text.heads=2",
)  # fmt: skip
HEAD = ("--config.method.captioner.width=16", "--config.method.captioner.depth=1", "--config.method.captioner.heads=2")
TEXTS = ["a red disc at the top", "there is a blue box on the left side"]


def samples_of(texts):
    tokens = PHRASE_TOKENIZER(texts)
    return Samples(tokens, None, np.ones(len(tokens), bool), output=Tokens())


def generator_of(tokenizer, examples=9):
    config = types.SimpleNamespace(data=types.SimpleNamespace(eval_split="test"))
    return types.SimpleNamespace(tokenizer=tokenizer, config=config, source=lambda split: range(examples))


def test_captions_of_a_folder_are_the_table_that_the_folder_is_read_with(tmp_path):
    for name in ("a.png", "more/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    files = tuple(epath.Path(tmp_path / name) for name in ("a.png", "more/b.png"))
    place = epath.Path(tmp_path)
    assert write_captions(place, generator_of(PHRASE_TOKENIZER), samples_of(TEXTS), Inputs({}, files)) != ""
    read = open_source(f"folder:{tmp_path}", "all", 8, 3)
    assert [str(read[i]["caption"]) for i in range(len(read))] == TEXTS


def test_captions_of_held_out_images_name_their_examples(tmp_path, caplog):
    write_captions(epath.Path(tmp_path), generator_of(PHRASE_TOKENIZER, 1), samples_of(TEXTS), None)
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert lines == [{"file": "test/0", "caption": text} for text in TEXTS]
    assert write_captions(epath.Path(tmp_path / "none"), generator_of(None), samples_of(TEXTS), None) == ""
    assert "no tokenizer" in caplog.text and not (tmp_path / "none").exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the shipped config, small."""
    workdir = tmp_path_factory.mktemp("captioner") / "clip"
    config = f"--config={tiny.ROOT / 'configs' / 'clip_shapes.py'}"
    assert tiny.call(config, f"--workdir={workdir}", *SMALL, *HEAD) == 0
    return workdir


@pytest.mark.slow
def test_a_folder_of_pictures_gets_captions(run, tmp_path, capsys):
    chance = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name, size in (("a", (40, 30)), ("b", (32, 32))):
        Image.fromarray(chance.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / "photos" / f"{name}.png")
    common = (f"--workdir={run}", "--mode=sample", "--config.evaluate.batch_size=2")
    words = (*common, f"--image={tmp_path / 'photos'}", f"--out={tmp_path / 'out'}")
    assert tiny.call(*words) == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "captions.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["a.png", "b.png"]
    drawn = np.load(tmp_path / "out" / "samples.npz")
    assert [PHRASE_TOKENIZER.decode(row) for row in drawn["tokens"]] == [line["caption"] for line in lines]
    np.testing.assert_allclose(np.linalg.norm(drawn["embedding"], axis=1), 1, atol=1e-5)
    warm = (*words[:-1], f"--out={tmp_path / 'warm'}", "--config.method.caption_temperature=9.0", "--seed=4")
    assert tiny.call(*warm) == 0
    assert (np.load(tmp_path / "warm" / "samples.npz")["tokens"] != drawn["tokens"]).any()
    (tmp_path / "photos" / "c.png").write_text("no picture")
    capsys.readouterr()
    assert tiny.call(*common, f"--image={tmp_path / 'photos'}", f"--out={tmp_path / 'bad'}") == 2
    assert "c.png" in capsys.readouterr().err and not (tmp_path / "bad").exists()


@pytest.mark.nightly
def test_its_numbers_are_those_of_the_docs(run, capsys):
    assert tiny.call(f"--workdir={run}", "--mode=evaluate") == 0
    numbers = json.loads(capsys.readouterr().out)
    names = {f"{what}{part}" for what in ("accuracy", "caption_accuracy") for part in ("", "_shape", "_position")}
    assert names | {"caption_exact", "recall_text_to_image@5", "caption_cross_entropy"} <= set(numbers)
    asked = ("--config.method.zero_shot.shape.templates=('a red {} at the top',)", "--config.method.recall=(2,)")
    assert tiny.call(f"--workdir={run}", "--mode=evaluate", "--checkpoint=3", *asked) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert "recall_text_to_image@2" in numbers and "recall_text_to_image@5" not in numbers


@pytest.mark.nightly
def test_it_is_written_out_and_a_clip_of_noisy_images_goes_on_from_it(run, tmp_path, capsys):
    from jaxgen.sampling.export import main

    assert main([str(run), str(tmp_path / "folder")]) == 0
    assert "captioner is no part of it" in capsys.readouterr().out
    loads = [f"--config.init_from.text=clip:{tmp_path / 'folder'}#text"]
    loads += [f"--config.init_from.{group}={run}#{group}" for group in ("image", "logit_scale")]
    config = f"--config={tiny.ROOT / 'configs' / 'clip_shapes_noised.py'}"
    assert tiny.call(config, f"--workdir={tmp_path / 'noised'}", *SMALL, *loads) == 0
    assert tiny.call(f"--workdir={tmp_path / 'noised'}", "--mode=evaluate") == 0
    numbers = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"accuracy_by_time@0.5", "accuracy"} <= set(numbers)
    assert tiny.call(f"--workdir={tmp_path / 'noised'}", "--mode=sample", "--num=3", f"--out={tmp_path / 'out'}") == 0
    assert np.load(tmp_path / "out" / "samples.npz")["embedding"].shape == (3, 64)


@pytest.mark.slow
def test_a_batch_in_parts_is_refused_before_anything_is_written(tmp_path, capsys):
    config = f"--config={tiny.ROOT / 'configs' / 'clip_shapes.py'}"
    assert tiny.call(config, f"--workdir={tmp_path / 'run'}", *SMALL, *HEAD, "--config.train.accumulate=2") == 2
    assert "compares every example with all others" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
