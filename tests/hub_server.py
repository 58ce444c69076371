"""A Hub on loopback that takes commits: what `huggingface_hub` asks of a server, from the standard library alone.

It keeps models, datasets and Spaces in memory, with large files sent by LFS, and fails where it is told to.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import secrets
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

USER = "writer"
WRITE_TOKEN, READ_TOKEN = "hf_write" + "w" * 30, "hf_read" + "r" * 31
TOKENS = {WRITE_TOKEN: USER, READ_TOKEN: "reader"}
REPO = re.compile(
    r"/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/(preupload|commit|revision|tree|paths-info|branch)/(.*))?"
)
RESOLVE = re.compile(r"(?:/(datasets|spaces))?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Stored:
    """The content of a file, and whether it is kept by LFS."""

    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        """SHA-256 of a large file, git's SHA-1 of a small one."""
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


class Repository:
    """Branches of commits, the newest last: id, message, and all files."""

    def __init__(self, private: bool, sdk: str | None) -> None:
        self.private, self.sdk = private, sdk
        self.branches: dict[str, list[tuple[str, str, dict[str, Stored]]]] = {"main": []}
        self.add("main", "initial commit", {".gitattributes": Stored(b"*.safetensors filter=lfs\n", False)})

    def add(self, branch: str, message: str, files: dict[str, Stored]) -> str:
        """Commit, and return the commit's id."""
        self.branches[branch].append((secrets.token_hex(20), message, files))
        return self.branches[branch][-1][0]

    def find(self, revision: str) -> tuple[str, dict[str, Stored]] | None:
        """The id and the files of the head of a branch, or of a commit."""
        commits = self.branches.get(revision) or [
            one for branch in self.branches.values() for one in branch if one[0] == revision
        ]
        return (commits[-1][0], commits[-1][2]) if commits else None

    @property
    def files(self) -> dict[str, bytes]:
        """The files at the head of main."""
        return {name: file.content for name, file in self.branches["main"][-1][2].items()}

    @property
    def messages(self) -> list[str]:
        """The messages of the commits to main after the first."""
        return [message for _, message, _ in self.branches["main"][1:]]


@dataclass
class Fault:
    """Fail from the n-th request that matches on, so many times.

    The answer is a status, "drop" for a connection that breaks, or "lose" for one that does once all was done.
    """

    request: str
    answer: int | str
    nth: int = 1
    times: float = 1
    seen: int = 0


class HubServer(ThreadingHTTPServer):
    """The server; `url` is what `HF_ENDPOINT` has to name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self.faults: list[Fault] = []
        self.lfs = ["*.safetensors"]  # names of the files that go by LFS
        self.lock = threading.RLock()

    def fail(self, request: str, answer: int | str, nth: int = 1, times: float = 1) -> None:
        """Fail requests such as "PUT /lfs/*" with an answer of [`Fault`]; `times=math.inf` for always."""
        self.faults.append(Fault(request, answer, nth, times))

    def count(self, request: str) -> int:
        """How often a request such as "PUT /lfs/*" was answered, failures not counted."""
        return sum(fnmatch(one, request) for one in self.requests)

    def uploaded(self) -> Iterator[tuple[str, bytes]]:
        """Everything that was ever sent here: all bodies, all files of all commits, all large files."""
        yield from (("body", body) for body in self.bodies)
        yield from (("large file", content) for content in self.large.values())
        for (kind, name), repository in self.repositories.items():
            for commits in repository.branches.values():
                for _, message, files in commits:
                    yield "message", message.encode()
                    for path, file in files.items():
                        yield f"{kind}/{name}/{path}", path.encode() + b"\n" + file.content


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *args: Any) -> None:
        """Stay silent."""

    def handle_one(self) -> None:
        """Fail if told to, else answer by method and path."""
        split = urlsplit(self.path)
        path, self.query = unquote(split.path), parse_qs(split.query)
        request = f"{self.command} {path}"
        with self.server.lock:
            for fault in self.server.faults:
                if fnmatch(request, fault.request):
                    fault.seen += 1
                    if fault.nth <= fault.seen < fault.nth + fault.times:
                        if fault.answer != "lose":
                            return self.break_off(fault.answer)
                        self.wfile = io.BytesIO()
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            self.server.requests.append(request)
            self.server.bodies.append(self.body)
            self.route(path)
        if isinstance(self.wfile, io.BytesIO):
            self.break_off("drop")

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def break_off(self, answer: int | str) -> None:
        """Drop the connection before the body is read, or answer with an error."""
        if answer == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.answer(int(answer), {"error": "told to fail"})

    def answer(self, status: int, value: Any = None, headers: dict[str, str] | None = None) -> None:
        """Send a status with bytes, or a value as JSON."""
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    @property
    def user(self) -> str | None:
        """Whom the token belongs to."""
        return TOKENS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def route(self, path: str) -> None:
        """Find the endpoint."""
        if path.startswith("/lfs/"):  # a signed address: the real one carries no token
            self.server.large[path.removeprefix("/lfs/")] = self.body
            return self.answer(200)
        if "Authorization" in self.headers and self.user is None:
            return self.answer(401, {}, {"X-Error-Message": "Invalid credentials in Authorization header"})
        if path == "/api/whoami-v2":
            return self.answer(200, {"name": self.user, "type": "user"}) if self.user else self.answer(401, {})
        if path in ("/api/repos/create", "/api/validate-yaml"):
            return self.create() if path == "/api/repos/create" else self.answer(200, {"errors": [], "warnings": []})
        large = re.fullmatch(r"(?:/(datasets|spaces))?/([^/]+/[^/]+)\.git/info/lfs/(?:objects/batch|verify)", path)
        api, file = REPO.fullmatch(path), RESOLVE.fullmatch(path)
        found = api or file or large
        if not found:
            return self.answer(404, {"error": f"no endpoint {path}"})
        kind, name = found[1] or "models", found[2]
        repository = self.server.repositories.get((kind, name))
        owner = name.split("/")[0]
        if repository is None or (repository.private and self.user != owner):
            return self.answer(404 if self.user else 401, {}, {"X-Error-Code": "RepoNotFound"})
        writes = large or (api and api[3] in ("preupload", "commit", "branch"))
        if writes and self.user != owner:
            return self.answer(403 if self.user else 401, {}, {"X-Error-Message": "You have no write access"})
        if large:
            return self.answer(200) if path.endswith("verify") else self.lfs_batch(name)
        revision, _, below = (file[3], "", file[4]) if file else (api[4] or "main").partition("/")
        if api and api[3] == "branch":
            exists = revision in repository.branches
            repository.branches.setdefault(revision, list(repository.branches["main"]))
            return self.answer(409 if exists else 200, {})
        if (commit := repository.find(revision)) is None:
            return self.answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        self.repository, self.name, self.revision, self.below = repository, name, revision, below
        self.oid, self.files = commit
        answers = {
            "preupload": self.preupload,
            "commit": self.commit,
            "tree": self.tree,
            "paths-info": self.paths_info,
        }
        self.resolve() if file else answers.get(api[3], self.describe)()

    def create(self) -> None:
        """Make a repository in the user's own namespace."""
        asked = json.loads(self.body)
        owner = asked.get("organization") or self.user
        if self.user is None or owner != self.user or self.user == "reader":
            return self.answer(403 if self.user else 401, {}, {"X-Error-Message": "You cannot create a repository"})
        kind, name = asked.get("type", "model") + "s", f"{owner}/{asked['name']}"
        url = f"{self.server.url}/{'' if kind == 'models' else kind + '/'}{name}"
        if (kind, name) in self.server.repositories:
            return self.answer(409, {"url": url})
        self.server.repositories[kind, name] = Repository(asked.get("visibility") == "private", asked.get("sdk"))
        self.answer(200, {"url": url})

    def preupload(self) -> None:
        """Tell how each file has to be sent, and what is here under its name."""
        answers = []
        for one in json.loads(self.body)["files"]:
            mode = "lfs" if any(fnmatch(one["path"], pattern) for pattern in self.server.lfs) else "regular"
            here = {"oid": self.files[one["path"]].oid} if one["path"] in self.files else {}
            answers.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, **here})
        self.answer(200, {"files": answers})

    def lfs_batch(self, name: str) -> None:
        """Tell where to send the large files that are not here yet."""
        objects = []
        for one in json.loads(self.body)["objects"]:
            actions = {
                "upload": {"href": f"{self.server.url}/lfs/{one['oid']}"},
                "verify": {"href": f"{self.server.url}/{name}.git/info/lfs/verify"},
            }
            objects.append({**one, **({} if one["oid"] in self.server.large else {"actions": actions})})
        self.answer(200, {"transfer": "basic", "objects": objects})

    def commit(self) -> None:
        """Take a commit whole or not at all."""
        message, after = "", dict(self.files)
        for line in self.body.splitlines():
            key, value = (one := json.loads(line))["key"], one["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                after[value["path"]] = Stored(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile":
                content = self.server.large.get(value["oid"])
                if content is None or hashlib.sha256(content).hexdigest() != value["oid"]:
                    return self.answer(400, {"error": f"{value['path']} was not uploaded"})
                after[value["path"]] = Stored(content, lfs=True)
            else:
                del after[value["path"]]
        new = self.repository.add(self.revision, message, after)
        self.answer(200, {"commitOid": new, "commitUrl": f"{self.server.url}/{self.name}/commit/{new}"})

    def describe(self) -> None:
        """Describe a repository at a revision."""
        siblings = [{"rfilename": path} for path in sorted(self.files)]
        told = {"id": self.name, "sha": self.oid, "private": self.repository.private, "sdk": self.repository.sdk}
        self.answer(200, told | {"siblings": siblings, "tags": [], "downloads": 0, "likes": 0, "gated": False})

    def tree(self) -> None:
        """List the files of a folder and the folders in it, all below it if asked."""
        top = self.below.rstrip("/") + "/" if self.below else ""
        inside = [path for path in self.files if path.startswith(top)]
        folders = {path[: at.start()] for path in inside for at in re.finditer("/", path) if at.start() > len(top) - 1}
        deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        listed = [self.entry(path) for path in sorted({*inside, *folders} - {self.below})]
        self.answer(200, [one for one in listed if deep or "/" not in one["path"][len(top) :]])

    def paths_info(self) -> None:
        """Describe some files and folders."""
        asked = parse_qs(self.body.decode())["paths"] if self.body[:1] != b"{" else json.loads(self.body)["paths"]
        known = [path for path in asked if path in self.files or any(one.startswith(f"{path}/") for one in self.files)]
        self.answer(200, [self.entry(path) for path in known])

    def entry(self, path: str) -> dict[str, Any]:
        """Describe one file or folder."""
        if path not in self.files:
            return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}
        file = self.files[path]
        told = {"type": "file", "path": path, "oid": file.oid[:40], "size": len(file.content)}
        return told | ({"lfs": {"oid": file.oid, "size": len(file.content), "pointerSize": 134}} if file.lfs else {})

    def resolve(self) -> None:
        """Send a file, or a range of it."""
        headers, file = {"X-Repo-Commit": self.oid}, self.files.get(self.below)
        if file is None:
            return self.answer(404, {}, headers | {"X-Error-Code": "EntryNotFound"})
        headers |= {"ETag": f'"{file.oid}"', "Accept-Ranges": "bytes"}
        if file.lfs:
            headers |= {"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": str(len(file.content))}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self.answer(200, file.content, headers)
        start, end = int(asked[1]), min(int(asked[2] or len(file.content)), len(file.content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(file.content)}"
        self.answer(206, file.content[start : end + 1], headers)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[HubServer]:
    """A running Hub that this process and those it starts use, logged in as `USER`; nobody waits between retries."""
    server = HubServer()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    home = tmp_path / "hf-home"
    environment = {"HF_ENDPOINT": server.url, "HF_TOKEN": WRITE_TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_MODULES_CACHE"):
        monkeypatch.delenv(name, raising=False)
    # What `huggingface_hub` has read from the environment already.
    constants = {"ENDPOINT": server.url, "HF_HUB_DISABLE_XET": True, "HF_HUB_OFFLINE": False}
    constants["HUGGINGFACE_CO_URL_TEMPLATE"] = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    constants["HF_TOKEN_PATH"] = str(home / "token")
    for name, value in constants.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    yield server
    server.shutdown()
    server.server_close()
