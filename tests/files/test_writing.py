"""Files are written completely or not at all."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from jaxgen.files import whole_file
from jaxgen.sampling import latents


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "file"
    with whole_file(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one" and [p.name for p in path.parent.iterdir()] == ["file"]


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_latents_that_cannot_be_written_to_the_end_leave_the_old_file(tmp_path, monkeypatch):
    method = SimpleNamespace(encodes="moments", encode_images=None)
    generator = SimpleNamespace(method=method, source=lambda split: None, batch_size=4)
    trained = SimpleNamespace(generator=generator, model=SimpleNamespace(params={"autoencoder": {}}))
    config = SimpleNamespace(data=SimpleNamespace(split="train"))
    # first, since its module imports the other name
    monkeypatch.setattr("jaxgen.sampling.restore.restore", lambda *_: trained)
    monkeypatch.setattr("jaxgen.runs.workdir.stored_config", lambda *_: config)
    monkeypatch.setattr(latents, "encoded", lambda *_: {"image": np.zeros((3, 8, 8, 1), np.uint8)})
    path = latents.write(tmp_path, tmp_path / "latents.npz", ("train",))
    assert np.load(path)["train_images"].shape == (3, 8, 8, 1)
    old = path.read_bytes()

    def full(file, **arrays):
        file.write(b"PK")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        latents.write(tmp_path, tmp_path / "latents.npz", ("train",))
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["latents.npz"]
