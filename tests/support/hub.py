"""A stand-in of the hub's API, on this machine alone: commits of a repository, their files, and downloads."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


@contextmanager
def hub_stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A stand-in of the hub, which huggingface_hub asks and caches in a folder."""
    stand_in = Hub()
    values = {"ENDPOINT": stand_in.endpoint, "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(folder / "cache")}
    template = stand_in.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in {**values, "HUGGINGFACE_CO_URL_TEMPLATE": template}.items():
        monkeypatch.setattr(constants, name, value)
    yield stand_in
    stand_in.close()


class Hub:
    """Repositories in memory.

    Attributes:
        commits: The files of each commit by their paths, oldest first.
        created: What repositories were asked for.
    """

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.created: list[dict[str, object]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(hub.post(urlsplit(self.path).path, body))

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                if "/resolve/" in path:
                    self.download(path)
                else:
                    self.answer(hub.get(path))

            do_HEAD = do_GET  # noqa: N815

            def download(self, path: str) -> None:
                commit, _, name = path.partition("/resolve/")[2].partition("/")
                content = hub.files(commit)[name]
                self.send_response(200)
                self.send_header("X-Repo-Commit", hub.commit(commit))
                self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')  # noqa: S324
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def answer(self, value: object) -> None:
                content = json.dumps(value).encode()
                self.send_response(404 if value is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def commit(self, revision: str) -> str:
        return list(self.commits)[-1] if revision == "main" else revision

    def files(self, revision: str) -> dict[str, bytes]:
        return self.commits[self.commit(revision)] if self.commits else {}

    def post(self, path: str, body: bytes) -> object:
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            return {"url": f"{self.endpoint}/datasets/me/notes"}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": one, "uploadMode": "regular", "shouldIgnore": False} for one in names]}
        assert path.endswith("/commit/main"), path
        files = dict(self.files("main"))
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        commit = hashlib.sha1(str(len(self.commits)).encode()).hexdigest()  # noqa: S324
        self.commits[commit] = files
        return {"commitUrl": f"{self.endpoint}/datasets/me/notes/commit/{commit}", "commitOid": commit}

    def get(self, path: str) -> object:
        revision = path.rpartition("/")[2] if "/revision/" in path or "/tree/" in path else "main"
        files = self.files(revision)
        if "/tree/" in path:
            return [
                {"type": "file", "path": name, "size": len(content), "oid": name}
                for name, content in files.items()
            ]
        if path.startswith(("/api/datasets/", "/api/models/")):
            siblings = [{"rfilename": name} for name in files]
            return {"id": "me/notes", "sha": self.commit(revision), "siblings": siblings, "tags": []}
        return None
