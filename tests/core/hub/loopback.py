"""A Hub in this process: what huggingface_hub's client needs of one, in memory, with faults on demand.

Speaks repositories, trees, regular and large files, pull requests, tags, tokens. Every answer is logged.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from loopback_repos import Entry, Repo

#: user -> token; the tokens are made up.
TOKENS = {"me": "hf_loopbackwriter0000", "guest": "hf_loopbackreader0000"}
LARGE = (".safetensors", ".png", ".parquet")
DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Fault:
    """What goes wrong with requests whose ``METHOD path`` matches, `times` times."""

    pattern: str
    kind: str  # status | cut | drop | corrupt
    times: int
    status: int = 500
    after: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: object = None


class Loopback:
    def __init__(self) -> None:
        server = self

        class Handler(_Handler):
            hub = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.lock = threading.RLock()
        self.clear()

    def __enter__(self) -> Loopback:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def clear(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[tuple[str, int, bool]] = []  # "METHOD path", status, with a token
        self.waits: list[float] = []
        self.gates: list[tuple[str, threading.Event, threading.Event]] = []

    def environment(self, home: Path) -> dict[str, str]:
        """What a process needs to talk to this Hub and to no other."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": TOKENS["me"],
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def put(self, repo: str, files: dict[str, bytes | Entry], *, kind: str = "model", **about: bool) -> Repo:
        """Make a repository that holds `files`, whatever they are called."""
        made = Repo(**about)
        entries = {n: f if isinstance(f, Entry) else Entry(f, n.endswith(LARGE)) for n, f in files.items()}
        self.blobs |= {entry.sha256: entry.data for entry in entries.values()}
        made.commit(entries)
        self.repos[kind, repo] = made
        return made

    def fail(
        self, pattern: str, status: int = 500, *, times: int = 10**6, kind: str = "status", **more: object
    ) -> None:
        self.faults.append(Fault(pattern, kind, times, status, **more))  # type: ignore[arg-type]

    def hold(self, pattern: str) -> tuple[threading.Event, threading.Event]:
        """Let requests that match wait; return what is set when the first has come, and what lets all go on."""
        came, go = threading.Event(), threading.Event()
        self.gates.append((pattern, came, go))
        return came, go

    def requests(self, pattern: str) -> list[tuple[str, int, bool]]:
        return [entry for entry in self.log if re.search(pattern, entry[0])]

    def fault(self, request: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, request):
                fault.times -= 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Loopback

    def log_message(self, *_: object) -> None:
        pass

    # ------------------------------------------------------------------ in and out

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, data: object = None, headers: dict[str, str] | None = None) -> None:
        raw = data if isinstance(data, bytes) else b"" if data is None else json.dumps(data).encode()
        self.hub.log.append((self.request_line, status, "Authorization" in self.headers))
        self.send_response(status)
        sent = {"Content-Length": str(len(raw)), **(headers or {})}
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            fault = self.broken
            if fault is not None and fault.kind == "corrupt":
                raw = raw[:-1] + bytes([raw[-1] ^ 1])
            if fault is not None and fault.kind == "cut" and len(raw) > fault.after:
                self.wfile.write(raw[: fault.after])
                self.close_connection = True
                return
            self.wfile.write(raw)

    def _missing(self, code: str, **headers: str) -> None:
        self._answer(404, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code, **headers})

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        self.request_line, self.broken = f"{self.command} {unquote(parts.path)}", None
        body = self._body()
        for pattern, came, go in self.hub.gates:
            if re.search(pattern, self.request_line):
                came.set()
                go.wait(60)
        with self.hub.lock:
            fault = self.hub.fault(self.request_line)
            if fault is not None and fault.kind == "status":
                return self._answer(fault.status, fault.body or {"error": "on purpose"}, dict(fault.headers))
            if fault is not None and fault.kind == "drop":
                self.hub.log.append((self.request_line, 0, "Authorization" in self.headers))
                self.close_connection = True
                return None
            self.broken = fault
            return self._route(parts.path, parse_qs(parts.query), body)

    do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815

    # ------------------------------------------------------------------ routes

    def _user(self) -> str | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return next((user for user, token in TOKENS.items() if token == given), None)

    def _route(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        if path.startswith("/_lfs/"):
            return self._lfs(path.removeprefix("/_lfs/"), body)
        if self.headers.get("Authorization") and self._user() is None:
            said = "Invalid credentials in Authorization header"
            return self._answer(401, {"error": said}, {"X-Error-Message": said})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if found := re.match(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(.*))?$", path):
            repo = self._visible(found[1], found[2])
            return None if repo is None else self._api(found[2], repo, found[3] or "", query, body)
        if found := re.match(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch$", path):
            repo = self._visible("dataset" if found[1] else "model", found[2])
            return None if repo is None else self._batch(json.loads(body))
        if found := re.match(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)$", path):
            repo = self._visible("dataset" if found[1] else "model", found[2])
            return None if repo is None else self._resolve(repo, found[3], unquote(found[4]))
        return self._missing("NoRoute")

    def _visible(self, kind: str, name: str) -> Repo | None:
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and self._user() != "me"):
            self._missing("RepoNotFound")
            return None
        if repo.gated and "resolve" in self.path:
            self._answer(403, {"error": "gated"}, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
            return None
        return repo

    def _create(self, data: dict[str, object]) -> None:
        user, kind = self._user(), str(data.get("type") or "model")
        name = f"{data.get('organization') or user}/{data['name']}"
        if user is None:
            return self._answer(401, {"error": "who are you"}, {"X-Error-Message": "Invalid username or password."})
        if not name.startswith(f"{user}/"):
            return self._answer(403, {"error": "not yours"}, {"X-Error-Message": "You don't have the rights"})
        url = f"{self.hub.url}/{'' if kind == 'model' else kind + 's/'}{name}"
        if (kind, name) in self.hub.repos:
            return self._answer(409, {"error": "You already created this repo", "url": url})
        repo = self.hub.put(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, kind=kind)
        repo.private = bool(data.get("private")) or data.get("visibility") == "private"
        return self._answer(200, {"url": url, "name": name, "id": "x"})

    def _api(self, name: str, repo: Repo, rest: str, query: dict[str, list[str]], body: bytes) -> None:
        verb, _, argument = rest.partition("/")
        if self.command == "POST" and verb in ("preupload", "commit", "tag") and not query.get("create_pr"):
            if self._user() is None:
                return self._answer(401, {"error": "who are you"})
            if not name.startswith(f"{self._user()}/"):
                return self._answer(403, {"error": "read only"}, {"X-Error-Message": "Forbidden: no write access"})
        if verb in ("", "revision"):
            return self._info(name, repo, argument or "main")
        if verb == "refs":
            tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in repo.tags.items()]
            return self._answer(200, {"branches": [], "converts": [], "tags": tags})
        if verb == "tree":
            return self._tree(repo, argument, recursive=query.get("recursive", ["false"])[0].lower() in ("true", "1"))
        if verb == "discussions":
            return self._discussions(repo, query)
        if verb == "preupload":
            return self._preupload(repo, argument, json.loads(body))
        if verb == "commit":
            return self._commit(name, repo, argument, [json.loads(line) for line in body.splitlines()], query)
        if verb == "tag":
            repo.tags[json.loads(body)["tag"]] = repo.find(argument) or ""
            return self._answer(200, {})
        return self._missing("NoRoute")

    def _info(self, name: str, repo: Repo, revision: str) -> None:
        oid = repo.find(revision)
        if oid is None:
            return self._missing("RevisionNotFound")
        about = {"_id": "0" * 24, "id": name, "sha": oid, "private": repo.private, "gated": False, "disabled": False}
        about |= {"lastModified": DATE, "createdAt": DATE, "tags": [], "downloads": 0, "likes": 0}
        about["siblings"] = [{"rfilename": path} for path in sorted(repo.commits[oid])]  # type: ignore[assignment]
        return self._answer(200, about)

    def _discussions(self, repo: Repo, query: dict[str, list[str]]) -> None:
        """One a page, so that whoever asks has to go on."""
        assert query["type"] == ["pull_request"]
        found = [proposal for proposal in repo.proposals if proposal["status"] == query["status"][0]]
        start = int(query["p"][0])
        self._answer(200, {"discussions": found[start : start + 1], "count": len(found), "start": start})

    def _tree(self, repo: Repo, argument: str, *, recursive: bool) -> None:
        revision, _, below = argument.partition("/")
        oid, below = repo.find(revision), unquote(below).strip("/")
        if oid is None:
            return self._missing("RevisionNotFound")
        prefix = f"{below}/" if below else ""
        folders, files = set(), []
        for path, entry in sorted(repo.commits[oid].items()):
            if not path.startswith(prefix):
                continue
            parts = path[len(prefix) :].split("/")
            depths = range(1, len(parts)) if recursive else range(1, min(2, len(parts)))
            folders |= {prefix + "/".join(parts[:depth]) for depth in depths}
            if recursive or len(parts) == 1:
                files.append(self._file(path, entry))
        if below and not files and not folders:
            return self._missing("EntryNotFound")
        tree = [{"type": "directory", "path": f, "oid": "0" * 40, "size": 0} for f in sorted(folders)]
        return self._answer(200, tree + files)

    @staticmethod
    def _file(path: str, entry: Entry) -> dict[str, object]:
        large = {"lfs": {"oid": entry.sha256, "size": entry.size, "pointerSize": 134}} if entry.large else {}
        return {"type": "file", "path": path, "size": entry.size, "oid": entry.oid, **large}

    # ------------------------------------------------------------------ writing

    def _preupload(self, repo: Repo, revision: str, data: dict[str, list[dict[str, object]]]) -> None:
        files = repo.commits[repo.find(revision) or ""]
        answers = []
        for asked in data["files"]:
            path = str(asked["path"])
            here = files.get(path)
            oid = None if here is None else here.sha256 if here.large else here.oid
            mode = "lfs" if path.endswith(LARGE) else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return self._answer(200, {"files": answers})

    def _batch(self, data: dict[str, list[dict[str, object]]]) -> None:
        objects = []
        for asked in data["objects"]:
            actions = {"upload": {"href": f"{self.hub.url}/_lfs/{asked['oid']}"}}
            actions["verify"] = {"href": f"{self.hub.url}/_lfs/verify"}
            objects.append({**asked, **({} if asked["oid"] in self.hub.blobs else {"actions": actions})})
        return self._answer(
            200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"}
        )

    def _lfs(self, oid: str, body: bytes) -> None:
        if oid == "verify":
            return self._answer(200, {})
        if self.command == "PUT":
            if hashlib.sha256(body).hexdigest() != oid:
                return self._answer(400, {"error": "sha256 mismatch"})
            self.hub.blobs[oid] = body
            return self._answer(200, b"")
        return self._bytes(self.hub.blobs[oid], {"ETag": f'"{oid}"'})

    def _bytes(self, data: bytes, headers: dict[str, str]) -> None:
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
        if found := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(found[1]), int(found[2]) if found[2] else len(data) - 1
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            return self._answer(206, data[first : last + 1], headers)
        if self.command == "HEAD":
            headers["Content-Length"] = str(len(data))
        return self._answer(200, data, headers)

    def _commit(
        self, name: str, repo: Repo, revision: str, lines: list[dict[str, dict[str, str]]], query: dict[str, list[str]]
    ) -> None:
        parent = repo.find(revision) or ""
        files = dict(repo.commits[parent])
        for line in lines:
            kind, value = line["key"], line["value"]
            if kind == "header" and value.get("parentCommit") not in (None, parent):
                return self._answer(412, {"error": "the branch has moved"})
            if kind == "file":
                files[value["path"]] = Entry(base64.b64decode(value["content"]), large=False)  # type: ignore[index]
            elif kind == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    return self._answer(400, {"error": "a large file was not uploaded"})
                files[value["path"]] = Entry(self.hub.blobs[value["oid"]], large=True)
            elif kind == "deletedFile":
                files.pop(value["path"], None)
            elif kind == "deletedFolder":
                files = {path: entry for path, entry in files.items() if not path.startswith(value["path"])}
        found = "dataset" if self.path.startswith("/api/datasets/") else "model"
        proposal, number = bool(query.get("create_pr")), len(repo.proposals) + 1
        oid = repo.commit(files, f"refs/pr/{number}" if proposal else unquote(revision))
        answer = {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"}
        if proposal:
            title = next(line["value"]["summary"] for line in lines if line["key"] == "header")
            about = {"num": number, "title": title, "status": "open", "isPullRequest": True, "createdAt": DATE}
            repo.proposals.append({**about, "author": {"name": self._user()}, "repo": {"name": name, "type": found}})
            place = f"datasets/{name}" if found == "dataset" else name
            answer["pullRequestUrl"] = f"{self.hub.url}/{place}/discussions/{number}"
        return self._answer(200, answer)

    # ------------------------------------------------------------------ reading

    def _resolve(self, repo: Repo, revision: str, path: str) -> None:
        oid = repo.find(revision)
        if oid is None:
            return self._missing("RevisionNotFound")
        entry = repo.commits[oid].get(path)
        if entry is None:
            return self._missing("EntryNotFound", **{"X-Repo-Commit": oid})
        headers = {"X-Repo-Commit": oid}
        if not entry.large:
            return self._bytes(entry.data, {**headers, "ETag": f'"{entry.oid}"'})
        # Large files lie on another host, as those of the Hub do.
        headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(len(entry.data))}
        headers |= {"ETag": f'"{entry.sha256}"', "Location": f"http://localhost:{self.hub.port}/_lfs/{entry.sha256}"}
        return self._answer(302, b"", headers)
