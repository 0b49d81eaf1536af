"""A server on 127.0.0.1 that answers as the Hugging Face hub does, for the calls that fetch and send a repository."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import pathlib
import re
import threading
from collections.abc import Iterator

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Holds repositories, `{"owner/name": {path: bytes}}`, all of one commit, and keeps what was asked and sent.

    Attributes:
      refused: `{repo: (status, error code)}` of repositories that are refused.
      asked: the paths of all requests.
      sent: `{path: bytes}` of the last commit.
      made: the bodies of calls that make a repository or a branch.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        self.asked: list[str] = []
        self.sent: dict[str, bytes] = {}
        self.made: list[dict] = []
        self.objects: dict[str, bytes] = {}
        self.address = ""


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, body: object = b"", status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(?:revision|tree)/([^/]+)", path):
            repo, revision = found.groups()
            if repo in self.hub.refused or repo not in self.hub.repositories:
                status, code = self.hub.refused.get(repo, (404, "RepoNotFound"))
                return self.answer({"error": "no"}, status, X_Error_Code=code)
            if revision not in ("main", COMMIT):
                return self.answer({"error": "no"}, 404, X_Error_Code="RevisionNotFound")
            if "/tree/" in path:
                files = self.hub.repositories[repo].items()
                return self.answer([
                    {"type": "file", "path": name, "size": len(x), "oid": hashlib.sha1(x).hexdigest()}
                    for name, x in files
                ])  # fmt: skip
            return self.answer({"id": repo, "sha": COMMIT, "siblings": [], "private": False, "tags": []})
        if found := re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{COMMIT}/(.+)", path):
            content = self.hub.repositories[found[1]][found[2]]
            return self.answer(content, X_Repo_Commit=COMMIT, ETag=f'"{hashlib.sha1(content).hexdigest()}"')
        return self.answer({"error": f"no such path: {path}"}, 404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/api/repos/create":
            self.hub.made.append(json.loads(body))
            if "refused" in self.hub.refused:
                return self.answer({"error": "log in"}, 401)
            name = json.loads(body)
            return self.answer({"url": f"{self.hub.address}/{name['organization']}/{name['name']}"})
        if "/branch/" in path:
            self.hub.made.append({"branch": path.rpartition("/")[2]})
            return self.answer({})
        if "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            mode = {True: "lfs", False: "regular"}
            return self.answer({"files": [
                {"path": name, "uploadMode": mode[name.endswith((".safetensors", ".png"))], "shouldIgnore": False}
                for name in names
            ]})  # fmt: skip
        if path.endswith("/info/lfs/objects/batch"):
            return self.answer({"transfer": "basic", "objects": [
                {**one, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]})  # fmt: skip
        if "/commit/" in path:
            for line in map(json.loads, body.decode().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.hub.sent[value["path"]] = base64.b64decode(value["content"])
                if line["key"] == "lfsFile":
                    self.hub.sent[value["path"]] = self.hub.objects[value["oid"]]
            url = f"{self.hub.address}/{'/'.join(path.split('/')[3:5])}/commit/{COMMIT}"
            return self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url})
        return self.answer({"errors": [], "warnings": []})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        oid = self.path.rpartition("/")[2]
        assert oid == hashlib.sha256(content).hexdigest()
        self.hub.objects[oid] = content
        self.answer()


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """Serves a stand-in on a free port, which the package takes for the hub, until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use(monkeypatch: pytest.MonkeyPatch, cache: pathlib.Path, endpoint: str = "") -> None:
    """Lets the package use a cache of the test's, and a stand-in or, without one, no network."""
    from huggingface_hub import constants

    from jaxgen.files import hub

    monkeypatch.setattr(hub, "_folders", {})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not endpoint)
    endpoint = endpoint or "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("HF_TOKEN", "a-token-of-the-stand-in")


def cached(cache: pathlib.Path, repo: str, folder: pathlib.Path, commit: str = COMMIT, ref: str = "main") -> None:
    """Puts the files of a folder into a cache, in the layout of the package: blobs, links to them, and a branch."""
    root = cache / f"models--{repo.replace('/', '--')}"
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        blob = root / "blobs" / hashlib.sha1(content).hexdigest()
        link = root / "snapshots" / commit / file.relative_to(folder)
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / ref).write_text(commit)
