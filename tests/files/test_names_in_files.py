"""A name that a file gives leads to nothing outside that file's folder, after links are followed."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from jaxgen.errors import UserError
from jaxgen.files import inside
from jaxgen.interop.diffusers_files import MODEL, open_weights
from jaxgen.report import page

# Names that lead from `<tmp>/run/samples` or `<tmp>/run/model` to `<tmp>/secret<ending>`; {tmp} is filled in.
OUTSIDE = {
    "two up": "../../secret",
    "many up": "../../../../../../../../..{tmp}/secret",
    "absolute": "{tmp}/secret",
    "through a folder": "deep/../../../secret",
    "a link to the file": "link",
    "a link to the folder": "folder/secret",
    "a link to a link": "again",
    "a neighbour with the same beginning": "../samples_of_others/secret",
}


@pytest.fixture
def run(tmp_path) -> pathlib.Path:
    """A run's folder; the secret picture and weights lie beside it, and links in it lead there."""
    for place in ("", "run/samples_of_others/"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).save(tmp_path / f"{place}secret.png")
        safetensors.numpy.save_file({"w": np.ones(3, np.float32)}, tmp_path / f"{place}secret.safetensors")
    for name in ("samples", "model"):
        folder = tmp_path / "run" / name
        (folder / "deep").mkdir(parents=True)
        (folder / "folder").symlink_to(tmp_path)
        for ending in (".png", ".safetensors"):
            (folder / f"link{ending}").symlink_to(tmp_path / f"secret{ending}")
            (folder / f"again{ending}").symlink_to(folder / f"link{ending}")
    return tmp_path / "run"


def refuse(name: str, file: str):
    """What is raised names the file, the entry and where it leads."""
    return pytest.raises(UserError, match=rf"{file} names '.*', which leads to /.*secret.*, outside of its folder")


@pytest.mark.parametrize("kind", OUTSIDE)
def test_an_index_of_weights_names_files_of_its_folder(kind, run):
    name = OUTSIDE[kind].format(tmp=run.parent) + ".safetensors"
    assert (run / "model" / name).is_file()  # without the check it would be read
    (run / "model" / f"{MODEL}.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with refuse(name, r"index\.json"):
        open_weights(run / "model")


@pytest.mark.parametrize("kind", OUTSIDE)
def test_a_report_shows_pictures_of_its_folder(kind, run):
    name = OUTSIDE[kind].format(tmp=run.parent)
    assert (run / "samples" / f"{name}.png").is_file()
    (run / "samples" / "seen.json").write_text(json.dumps({name: {"title": "t", "text": "t"}}))
    with refuse(name, r"seen\.json"):
        page.write_report(run)
    written = (run / "report.html").read_text()  # the rest of the page, with the refusal in the picture's place
    assert "outside of its folder" in written and "data:image" not in written


@pytest.mark.parametrize("name", ["panel_x.png", "step_64.png", "x.gif"])
def test_a_report_follows_no_picture_that_is_a_link_out_of_its_folder(name, run):
    (run / "samples" / name).symlink_to(run.parent / "secret.png")
    with refuse(name, "samples"):
        page.write_report(run)


@pytest.mark.parametrize("name", ["run.json", "config.json", "metrics.json", "metrics.jsonl", "plan.json"])
def test_a_report_follows_no_record_that_is_a_link_out_of_its_folder(name, run):
    (run.parent / "secret.json").write_text('{"token": "x"}')
    (run / "samples" / "step_64.png").write_bytes((run.parent / "secret.png").read_bytes())
    (run / name).symlink_to(run.parent / "secret.json")
    with refuse(name, "run"):
        page.write_report(run)


def test_what_lies_in_the_folder_is_read(run):
    folder = run / "model"
    safetensors.numpy.save_file({"w": np.ones(3, np.float32)}, folder / "deep" / "part.safetensors")
    (folder / "other.safetensors").symlink_to(folder / "deep" / "part.safetensors")
    index = folder / f"{MODEL}.safetensors.index.json"
    for name in ("deep/part.safetensors", "other.safetensors", "deep/../deep/part.safetensors", "./other.safetensors"):
        index.write_text(json.dumps({"weight_map": {"w": name}}))
        np.testing.assert_array_equal(open_weights(folder)["w"], np.ones(3))


def test_a_folder_that_is_a_link_itself_is_entered(run):
    (run.parent / "linked").symlink_to(run / "model")
    assert inside(run.parent / "linked", "deep") == run.parent / "linked" / "deep"


@pytest.mark.parametrize("shared", [False, True])
def test_the_cache_of_hugging_face_is_read(shared, tmp_path):
    """Its folders hold links to a folder of files that are named by their digests, or on to that of the whole cache."""
    repository = tmp_path / "models--me--model"
    blobs, folder = repository / "blobs", repository / "snapshots" / "f00" / "unet"
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    real = tmp_path / "blobs" / "1a" / "1a2b" if shared else blobs / "1a"
    real.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file({"w": np.ones(3, np.float32)}, real)
    if shared:
        (blobs / "1a").symlink_to("../../blobs/1a/1a2b")
    (blobs / "2b").write_text(json.dumps({"weight_map": {"w": f"{MODEL}-1.safetensors"}}))
    (folder / f"{MODEL}-1.safetensors").symlink_to("../../../blobs/1a")
    (folder / f"{MODEL}.safetensors.index.json").symlink_to("../../../blobs/2b")
    np.testing.assert_array_equal(open_weights(folder)["w"], np.ones(3))
    (folder / f"{MODEL}-1.safetensors").unlink()
    (folder / f"{MODEL}-1.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="outside of its folder"):
        open_weights(folder)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "gs://other/x", "s3://x"])
def test_stores_are_checked_by_their_text(name):
    with pytest.raises(UserError, match=rf"gs://bucket/run names '{name}'"):
        inside("gs://bucket/run", name)
    assert os.fspath(inside("gs://bucket/run", "a/x..y")) == "gs://bucket/run/a/x..y"


@pytest.mark.parametrize("name", ["gs://bucket/x", "http://example.com/x"])
def test_a_file_on_the_disk_leads_to_no_store(name, tmp_path):
    with pytest.raises(UserError, match="outside of its folder"):
        inside(tmp_path, name)


@pytest.mark.parametrize("name", [None, 3, ["a"], {"a": 1}, "", "a\0b", "\ud800"])
def test_what_is_no_name_is_one_sentence(name, tmp_path):
    with pytest.raises(UserError, match=r"name of a file") as caught:
        inside(tmp_path, name)
    assert "\n" not in str(caught.value)
    index = tmp_path / f"{MODEL}.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(UserError, match=r"index\.json.*(name of a file|a text is needed|half a character)") as caught:
        open_weights(tmp_path)
    assert "\n" not in str(caught.value)
