"""Where published files are looked for, and fetching one from a server on this machine."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading

import pytest

from jaxgen.downloads import FOLDER, Published, cache_folder, locate
from jaxgen.errors import UserError

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def server():
    """Its address and the paths that it was asked for; "/short" claims more than it sends."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/none":
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT) + (self.path == "/short")))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}", asked
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(FOLDER, raising=False)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)


def published(url: str = "http://127.0.0.1:1/w.pth", sha256: str = "", **options) -> Published:
    return Published("w.pth", url, sha256 or hashlib.sha256(CONTENT).hexdigest(), "the weights of a test", **options)


def test_a_file_is_fetched_once(server):
    address, asked = server
    first = locate(published(f"{address}/w.pth"))
    assert first == cache_folder() / "w.pth" and first.read_bytes() == CONTENT
    assert locate(published(f"{address}/w.pth")) == first
    assert asked == ["/w.pth"]
    assert list(cache_folder().iterdir()) == [first]


@pytest.mark.parametrize(
    "path,told", [("/w.pth", "SHA-256 begins with"), ("/short", "could not be fetched"), ("/none", "404")]
)
def test_nothing_stays_of_a_wrong_answer(server, path, told):
    sha256 = "0" * 64 if path == "/w.pth" else ""
    with pytest.raises(UserError, match=told):
        locate(published(server[0] + path, sha256))
    assert list(cache_folder().iterdir()) == []


def test_without_a_network_one_sentence_says_what_to_do():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/w.pth"
        with pytest.raises(UserError) as caught:
            locate(published(url))
    for part in ("w.pth", "the weights of a test", url, str(cache_folder()), FOLDER):
        assert part in str(caught.value)


def test_a_path_may_be_the_file_or_its_folder(tmp_path):
    (tmp_path / "w.pth").write_bytes(CONTENT)
    (tmp_path / "renamed.pth").write_bytes(CONTENT)
    assert locate(published(), tmp_path) == tmp_path / "w.pth"
    assert locate(published(), str(tmp_path / "renamed.pth")) == tmp_path / "renamed.pth"
    with pytest.raises(UserError, match=r"no file .*gone\.pth"):
        locate(published(), tmp_path / "gone.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no file .*empty.w\.pth"):
        locate(published(), tmp_path / "empty")


def test_a_path_wins_over_the_folder_and_the_folder_over_the_cache(tmp_path, monkeypatch):
    places = [tmp_path / "given", tmp_path / "folder", cache_folder()]
    for place in places:
        place.mkdir(parents=True)
        (place / "w.pth").write_bytes(CONTENT)
    monkeypatch.setenv(FOLDER, str(places[1]))
    assert locate(published(), places[0]) == places[0] / "w.pth"
    assert locate(published()) == places[1] / "w.pth"
    (places[1] / "w.pth").unlink()
    assert locate(published()) == places[2] / "w.pth"
    monkeypatch.setenv(FOLDER, str(tmp_path / "gone"))
    with pytest.raises(UserError, match="gone, which is not there"):
        locate(published())


def test_another_name_of_the_same_file_will_do(tmp_path):
    (tmp_path / "other.pth").write_bytes(CONTENT)
    assert locate(published(also=("other.pth",)), tmp_path) == tmp_path / "other.pth"


def test_the_hash_is_checked_wherever_the_file_was(tmp_path, monkeypatch):
    """Against its first digits too, and however the file was found."""
    for place in (tmp_path, cache_folder()):
        place.mkdir(parents=True, exist_ok=True)
        (place / "w.pth").write_bytes(CONTENT[:-1])
    wrong, right = published(), published(sha256=hashlib.sha256(CONTENT[:-1]).hexdigest()[:8])
    assert locate(right, tmp_path).read_bytes() == locate(right).read_bytes() == CONTENT[:-1]
    with pytest.raises(UserError, match=r"w\.pth is not the published w\.pth"):
        locate(wrong, tmp_path)
    with pytest.raises(UserError, match="not the published"):
        locate(wrong)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with pytest.raises(UserError, match="not the published"):
        locate(wrong)
