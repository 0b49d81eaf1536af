"""What cannot be trained is refused in one sentence before anything is written."""

from __future__ import annotations

import dataclasses
import time

import jax.numpy as jnp
import pytest
import tiny
import tiny_methods
from jax import random

from jaxgen import sizes
from jaxgen.arrays import Entries
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.sampling.generator import Generator


@dataclasses.dataclass(frozen=True)
class Reader(tiny_methods.Plain):
    """Reads an entry that digits do not have, at one of several places."""

    place: str = "init"

    @property
    def conditions(self):
        return ("tokens",) if self.place == "conditions" else ()

    @property
    def panel_inputs(self):
        return ("tokens",) if self.place == "panel_inputs" else ()

    def init(self, key, batch, *rest):
        if self.place == "init":
            batch["tokens"]
        return super().init(key, batch, *rest)

    def loss(self, params, batch, key, state):
        if self.place == "loss":
            batch["tokens"]
        return super().loss(params, batch, key, state)

    def panels(self, model, keys, batch):
        if self.place == "panels":
            batch["tokens"]
        return {}


@dataclasses.dataclass(frozen=True)
class Odd(tiny_methods.Plain):
    """Samples something that is no batch of images."""

    kind: str = "number"

    def sample(self, model, keys, batch):
        images = jnp.zeros((len(keys), 8, 8, 1))
        return {
            "number": images.mean(),
            "larger": jnp.zeros((len(keys), 16, 16, 1)),
            "colour": jnp.zeros((len(keys), 8, 8, 3)),
            "fewer": images[:-1],
            "labels": images.astype(jnp.int32),
            "pair": (images, images),
            "nothing": None,
        }[self.kind]


@dataclasses.dataclass(frozen=True)
class OddPanels(tiny_methods.Plain):
    """Its pictures for the report have a shape that cannot be drawn."""

    def panels(self, model, keys, batch):
        return {"wheel": jnp.zeros((len(keys), 8, 8))}


CONFIG = """
from tiny_methods import tiny_config

def get_config():
    config = tiny_config("Plain")
    config.method.name = "test_before_writing:{name}"
    config.method.update({options})
    return config
"""


@pytest.fixture
def refused(tmp_path, capsys):
    """Trains by a config of this file's methods and returns the one sentence; nothing may be left behind."""

    def train(name: str, *words: str, **options: object) -> str:
        (tmp_path / "config.py").write_text(CONFIG.format(name=name, options=options))
        status = tiny.call(f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'new' / 'run'}", *words)
        assert status == 2 and not (tmp_path / "new").exists()
        return tiny.Result(status, *capsys.readouterr()).complaint

    return train


@pytest.mark.parametrize("place", ["init", "loss", "conditions", "panel_inputs", "panels"])
def test_an_entry_that_the_data_do_not_have(place, refused):
    said = refused("Reader", place=place)
    assert "reads the entry 'tokens' of a batch that has" in said and "config.data.source" in said


@pytest.mark.parametrize("kind", ["number", "larger", "colour", "fewer", "labels", "pair", "nothing"])
def test_a_sampler_that_gives_no_images(kind, refused):
    said = refused("Odd", kind=kind)
    assert "test_before_writing:Odd" in said and "(8, 8, 8, 1)" in said


def test_pictures_that_cannot_be_drawn(refused):
    said = refused("OddPanels")
    assert "'wheel'" in said and "[N, H, W, C]" in said


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("--config.optimizer.name=adamwx", "'adamw'"),
        ("--config.optimizer.momentums=1.0", "config.optimizer.momentums"),
        ("--config.optimizer.decay=cosin", "'cosine'"),
        ("--config.init_from.net=/nowhere/at/all", "/nowhere/at/all"),
        ("--config.data.source=digitss", "'digits'"),
        ("--config.data.split=trian", "'train'"),
        ("--config.data.eval_split=tets", "config.data.eval_split"),
        ("--config.method.names=1", "config.method.names"),
        ("--config.mesh.data=3", "config.mesh.data"),
    ],
)
def test_what_a_config_names(word, named, refused):
    assert named in refused("Reader", word, place="")


def test_a_missing_entry_is_named_and_others_are_read():
    batch = Entries({"image": 1, "label": 2})
    assert batch["label"] == 2 and batch.get("tokens") is None and {**batch} == {"image": 1, "label": 2}
    with pytest.raises(UserError, match="'tokens' of a batch that has image, label:"):
        batch["tokens"]


def test_images_of_the_right_shape_pass():
    config = tiny_methods.tiny_config("Plain")
    method = tiny_methods.Plain()
    params, _ = method.init(random.key(0), {"image": jnp.zeros((8, 8, 8, 1))}, 0, {}, {}, {})
    Generator(method, config).check(Model(params, {}))


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("--config.train.batch_size=1000000000000", "config.train.batch_size=1000000000000 images of 8x8x1"),
        ("--config.data.resolution=100000", "images of 100000x100000x1"),
        ("--config.evaluate.batch_size=1000000000000", "config.evaluate.batch_size"),
        ("--config.method.schedule.steps=10000000000", "config.method.schedule.steps=10000000000"),
        ("--config.sampler.steps=10000000000", "config.sampler.steps"),
        ("--config.method.network.channels=1000000", "config.mesh.fsdp"),
        ("--config.data.workers=1000000", "config.data.workers"),
        ("--config.train.keep_last=100000000000000000000", "config.train.keep_last"),
    ],
)
def test_sizes_that_cannot_be(word, named, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sizes, "memory_bytes", lambda: 2**34)
    config = tiny.write_config(tmp_path)
    began = time.monotonic()
    words = ["--config.evaluate.metrics=()", "--config.evaluate.network=''"]
    assert tiny.call(f"--config={config}", f"--workdir={tmp_path / 'run'}", *words, word) == 2
    assert named in tiny.Result(2, *capsys.readouterr()).complaint
    assert time.monotonic() - began < 20 and not (tmp_path / "run").exists()


def test_a_number_of_samples_that_cannot_be(tmp_path, capsys):
    config = tiny.write_config(tmp_path)
    words = [f"--config={config}", f"--workdir={tmp_path}", "--mode=sample", f"--out={tmp_path / 'out'}"]
    for num in (10**15, 10**20):
        assert tiny.call(*words, f"--num={num}") == 2
        assert f"--num={num} images of 8x8x1 would take" in tiny.Result(2, *capsys.readouterr()).complaint


def test_bytes_in_words():
    assert [sizes.spoken(n) for n in (999, 1000, 1_250_000, 10**12, 10**21)] == [
        "999 bytes", "1 kB", "1.25 MB", "1 TB", "1.0e+06 PB",
    ]  # fmt: skip
    sizes.check_fits(10, "x", "y", 10)
    with pytest.raises(UserError, match=r"^x would take 11 bytes of memory, and there are 10 bytes: y\.$"):
        sizes.check_fits(11, "x", "y", 10)
