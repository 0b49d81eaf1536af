"""Paths that a user gives are understood in one way, and what no path can be is one sentence."""

from __future__ import annotations

import os
import pathlib

import fsspec
import pytest

from jaxgen.errors import UserError
from jaxgen.files import folder, regular_file, user_path


def test_home_is_expanded_and_a_relative_path_stays_so(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/runs/x", "--workdir") == tmp_path / "runs" / "x"
    assert os.fspath(user_path("runs/x", "--workdir")) == "runs/x"
    assert os.fspath(user_path("./~", "--workdir")).rstrip("/").endswith("~")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "--out is empty"),
        ("  ", "--out is empty"),
        ("a\0b", "zero byte"),
        ("a\udce9", "not a name in UTF-8"),
        ("~nobody-of-this-name/x", "no user 'nobody-of-this-name'"),
        ("http://host/x", "http:// is not read or written here"),
        ("file:///x", "file:// is not read or written here"),
    ],
)
def test_what_no_path_can_be_is_refused(text, told):
    with pytest.raises(UserError, match=told):
        user_path(text, "--out")


@pytest.mark.parametrize(("store", "package"), [("gs", "gcsfs"), ("s3", "s3fs")])
def test_a_store_names_the_package_that_opens_it(store, package, monkeypatch):
    def missing(*_, **__):
        raise ImportError(f"Please install {package}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(UserError, match=f"pip install {package}"):
        user_path(f"{store}://bucket/x", "--out")


def test_a_file_is_a_file_and_a_folder_a_folder(tmp_path):
    file = tmp_path / "a"
    file.write_text("a")
    os.mkfifo(tmp_path / "pipe")
    assert regular_file(file, "--noise") == file and folder(tmp_path, "--out") == tmp_path
    for path, told in [(tmp_path, "is a folder"), (tmp_path / "pipe", "pipe"), (pathlib.Path("/dev/null"), "a device")]:
        with pytest.raises(UserError, match=f"--noise=.*{told}"):
            regular_file(path, "--noise")
    for path, told in [(file, "is a file"), (file / "b", "a part of the path is a file"), (tmp_path / "n", "no such")]:
        with pytest.raises(UserError, match=f"--out=.*{told}"):
            folder(path, "--out")
