"""A stand-in of the Hub on loopback: as much of its HTTP as its client needs to make, fill and read a repository."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class Hub(ThreadingHTTPServer):
    """Repositories in memory, each a list of commits."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        #: By repository: commits, each the files by name.
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        #: Files that were sent apart from a commit, by their sha256.
        self.large: dict[str, bytes] = {}
        self.seen: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self, repo: str) -> dict[str, bytes]:
        """Return the files of the newest commit."""
        return self.repositories[repo][-1]


def commit_hash(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, content: Any = b"", status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self.body()
        self.server.seen.append(f"POST {path}")
        if path == "/api/repos/create":
            said = json.loads(body)
            name = f"{said.get('organization') or 'user'}/{said['name']}"
            if self.headers.get("Authorization") != "Bearer token":
                self.answer({"error": "who are you?"}, 401)
                return
            self.server.repositories.setdefault(name, [{}])
            self.answer({"url": f"{self.server.address}/{name}"})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            names = [one["path"] for one in json.loads(body)["files"]]
            modes = ["lfs" if name.endswith(".safetensors") else "regular" for name in names]
            self.answer(
                {
                    "files": [
                        {"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in zip(names, modes, strict=True)
                    ]
                }
            )
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.server.address}/upload/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif path.endswith("/commit/main"):
            repo = "/".join(path.split("/")[3:5])
            files = dict(self.server.files(repo))
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "lfsFile":
                    files[line["value"]["path"]] = self.server.large[line["value"]["oid"]]
            self.server.repositories[repo].append(files)
            self.answer(
                {
                    "commitUrl": f"{self.server.address}/{repo}/commit/{commit_hash(files)}",
                    "commitOid": commit_hash(files),
                    "pullRequestUrl": None,
                }
            )
        else:
            self.answer({"error": f"no {path}"}, 404)

    def do_PUT(self) -> None:
        body = self.body()
        self.server.seen.append("PUT")
        self.server.large[hashlib.sha256(body).hexdigest()] = body
        self.answer()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.seen.append(f"{self.command} {path}")
        words = path.strip("/").split("/")
        repo = "/".join(words[2:4] if words[0] == "api" else words[:2])
        if repo not in self.server.repositories:
            self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return
        files = self.server.files(repo)
        if words[0] == "api" and "tree" in words:
            self.answer(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
            )
        elif words[0] == "api":
            self.answer({"id": repo, "sha": commit_hash(files), "siblings": [{"rfilename": name} for name in files]})
        else:
            content = files["/".join(words[4:])]
            self.answer(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=commit_hash(files))


@contextmanager
def hub() -> Iterator[Hub]:
    """Serve a stand-in until the end of the block."""
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
