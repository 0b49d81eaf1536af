"""Repositories of the hub are fetched and sent, and what goes wrong is one sentence."""

from __future__ import annotations

import importlib.util
import logging
import os

import pytest

pytest.importorskip("huggingface_hub")

import standin_hub
from standin_hub import COMMIT

from jaxgen.errors import UserError
from jaxgen.files import user_path
from jaxgen.files.hub import hub_folder, hub_name, send_folder

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "unet/diffusion_pytorch_model.safetensors": b"more weights",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half",
    "tokenizer/merges.txt": b"a b",
    "v1-pruned.safetensors": b"the whole model once more",
    "safety_checker/model.safetensors": b"not used",
    "pytorch_model.bin": b"a pickle",
    "model.ckpt": b"a pickle",
    "train.py": b"code",
}
READ = {"config.json", "model.safetensors", "unet/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt"}


@pytest.fixture(name="hub")
def _hub(tmp_path, monkeypatch):
    with standin_hub.serving() as hub:
        standin_hub.use(monkeypatch, tmp_path / "cache", hub.address)
        hub.repositories["me/model"] = FILES
        yield hub


@pytest.mark.parametrize(
    "text",
    ["hf:", "hf:name", "hf:a/b/c", "hf:a/b@", "hf:/b", "hf:a/", "hf:a/../b", "hf:a/b@x y", "hf:a/b@../c", "hf:a b/c"],
)
def test_a_malformed_name_is_refused(text):
    with pytest.raises(UserError, match=r"--x=.*is named hf:<owner>/<name>"):
        hub_name(text, "--x")


def test_a_name_and_its_revision():
    assert hub_name("hf:me/a.b-c_d", "x") == ("me/a.b-c_d", "")
    assert hub_name("hf:me/model@refs/pr/1", "x") == ("me/model", "refs/pr/1")
    assert hub_name("hf:me/model@v1.0", "x").text == "hf:me/model@v1.0"


def test_a_path_that_is_written_is_no_repository():
    with pytest.raises(UserError, match=r"--out=hf:me/model: .*hf download me/model --local-dir=DIR"):
        user_path("hf:me/model", "--out")
    folder = user_path("./hf:me/model", "--out")
    assert os.fspath(folder) == os.path.abspath("./hf:me/model") and user_path(folder, "--out") == folder


def test_without_the_package_the_sentence_names_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "jaxgen\[hub\]"'):
        hub_folder("hf:me/model", "x")


def test_what_is_read_is_fetched_once_and_nothing_else(hub, caplog):
    with caplog.at_level(logging.INFO, "jaxgen"):
        folder = user_path("hf:me/model", "config.init_from.pretrained", hub=True)
    found = {os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names}
    assert found == READ
    assert all((folder / name).read_bytes() == FILES[name] for name in READ)
    assert not any(name.endswith((".bin", ".ckpt", ".py", "pruned.safetensors")) for name in hub.asked)
    assert f"hf:me/model@{COMMIT} names the same files for good" in caplog.text
    count = len(hub.asked)
    assert hub_folder("hf:me/model", "another key") == hub_folder("hf:me/model", "x")
    assert len(hub.asked) == count


def test_weights_of_half_precision_are_fetched_where_there_are_no_others(hub):
    name = "unet/diffusion_pytorch_model.fp16.safetensors"
    hub.repositories["me/half"] = {"model_index.json": b"{}", name: b"half"}
    assert (hub_folder(f"hf:me/half@{COMMIT}", "x") / name).read_bytes() == b"half"


CASES = {
    "unknown": ("hf:me/gone", r"no repository 'me/gone' that this token may read"),
    "revision": ("hf:me/model@v9", r"'me/model' has no revision 'v9'"),
    "gated": ("hf:me/gated", r"is gated; ask for access .*hf auth login"),
    "login": ("hf:me/private", r"no repository 'me/private' that this token may read.*HF_TOKEN"),
    "pickles": ("hf:me/pickles", r"has no weights that are read here.*\.bin.* never fetched"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_is_one_sentence(case, hub):
    text, words = CASES[case]
    hub.refused |= {"me/gated": (403, "GatedRepo"), "me/private": (401, "RepoNotFound")}
    hub.repositories["me/pickles"] = {"config.json": b"{}", "pytorch_model.bin": b"a pickle"}
    with pytest.raises(UserError, match=words) as told:
        hub_folder(text, "config.init_from.pretrained")
    assert str(told.value).startswith(f"config.init_from.pretrained={text}") and "\n" not in str(told.value)


def test_without_a_network_the_cache_is_read_or_the_sentence_says_how_to_fill_it(tmp_path, monkeypatch):
    files = tmp_path / "files"
    files.mkdir()
    (files / "model.safetensors").write_bytes(b"x")
    standin_hub.use(monkeypatch, tmp_path / "cache")
    standin_hub.cached(tmp_path / "cache", "me/model", files)
    for text in ("hf:me/model", f"hf:me/model@{COMMIT}", "hf:me/model@main"):
        assert (hub_folder(text, "x") / "model.safetensors").read_bytes() == b"x"
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set, and .*hf download me/other"):
        hub_folder("hf:me/other", "x")


def test_a_hub_that_does_not_answer(tmp_path, monkeypatch):
    standin_hub.use(monkeypatch, tmp_path / "cache", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="the hub cannot be reached, and its files are not all in the cache"):
        hub_folder("hf:me/model", "x")


def test_the_named_files_are_sent_and_no_others(hub, tmp_path, caplog):
    content = {"README.md": b"# a card", "model.safetensors": b"weights" * 100, "tokenizer/words.json": b"{}"}
    for name, data in {**content, "secret.txt": b"no"}.items():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(data)
    with caplog.at_level(logging.INFO, "jaxgen"):
        address = send_folder(tmp_path / "out", [*content], "hf:me/new@draft", "a message", private=True)
    assert hub.sent == content
    assert address == f"{hub.address}/me/new/commit/{COMMIT}"
    assert hub.made[0]["name"] == "new" and hub.made[1] == {"branch": "draft"}
    assert "sending 3 files" in caplog.text and "is made, private" in caplog.text


def test_who_may_not_send_is_told_to_log_in(hub, tmp_path):
    (tmp_path / "README.md").write_bytes(b"x")
    hub.refused["refused"] = (401, "")
    with pytest.raises(UserError, match=r"--push_to=hf:me/new: .*hf auth login"):
        send_folder(tmp_path, ["README.md"], "hf:me/new", "a message", private=False)
    assert not hub.sent
