"""As much of the Hugging Face hub as making a data set and uploading files needs."""

import base64
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote

TOKEN = "hf_thisIsTheTokenThatNobodySees"


class Hub(ThreadingHTTPServer):
    """As much of the hub as making a data set and uploading files needs.

    ``repos`` has the files of each data set by path, ``private`` whether it is and ``heads`` its
    newest revision; ``refuse`` maps the beginning of a path to the status that is answered instead.
    Of the commits, ``cut`` is the number of the one that breaks off: unmade, or with ``lost`` made
    while its answer is lost; before that with the number ``other`` somebody else makes one.
    ``commits`` has the files of the data set after each. ``bad_card`` is what is wrong with cards.
    With ``lfs`` Parquet files go to a store, ``stored``, as the hub has it, and else along with
    their commits, which is simpler. From the request with the number ``dead`` on no request is
    answered, as where a network is gone; that one is still done where ``lost`` is set.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.heads: dict[str, int] = {}
        self.refuse: dict[str, int] = {}
        self.cut: int | None = None
        self.lost = False
        self.other: int | None = None
        self.bad_card: str | None = None
        self.lfs = False
        self.stored: dict[str, bytes] = {}
        self.commits: list[dict[str, bytes]] = []
        self.dead: int | None = None
        # By data set and tag: the revision, what was said of it, and the files that it had.
        self.tags: dict[str, dict[str, tuple[str, str | None, dict[str, bytes]]]] = {}
        self.collections: dict[str, list[str]] = {}
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.committed: list[list[str]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    gone = False  # Whether this request is not answered.

    def do_GET(self) -> None:
        self._answer("GET", b"")

    def do_HEAD(self) -> None:
        self._answer("HEAD", b"")

    def do_POST(self) -> None:
        self._answer("POST", self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_PUT(self) -> None:
        self._answer("PUT", self._body())

    def log_message(self, *_: Any) -> None:
        pass

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _answer(self, verb: str, body: bytes) -> None:
        hub = self.server
        number = len(hub.requests)
        hub.requests.append((verb, self.path, dict(self.headers), body))
        self.gone = hub.dead is not None and number >= hub.dead
        if self.gone and not (hub.lost and number == hub.dead):
            self.close_connection = True
            return None
        path = self.path.split("?")[0]
        for prefix, status in hub.refuse.items():
            if path.startswith(prefix):
                return self._send(status, {"error": f"no, {TOKEN}"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            errors = [{"message": hub.bad_card}] if hub.bad_card else []
            return self._send(400 if errors else 200, {"errors": errors, "warnings": []})
        if path.startswith("/store/"):
            assert sha256(body).hexdigest() == path.removeprefix("/store/")
            hub.stored[path.removeprefix("/store/")] = body
            return self._send(200, {})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._send(200, {"objects": [*map(self._action, json.loads(body)["objects"])]})
        if path.startswith("/api/collections"):
            return self._collect(path, json.loads(body or b"{}"))
        if found := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(found[1], found[2], unquote(found[3]))
        found = re.fullmatch(
            r"/api/datasets/([^/]+/[^/]+)(?:/([\w-]+)(?:/([^/]+)(?:/.*)?)?)?", path
        )
        if found is None or found[1] not in hub.repos:
            return self._send(404, {"error": "Repository not found"})
        if found[2] == "tag":
            return self._tag(found[1], found[3], json.loads(body))
        files = self._at(found[1], found[3] or "main")
        if files is None:
            return self._send(404, {"error": "Revision not found"})
        return self._repo(found[1], found[2], files, body)

    def _at(self, name: str, revision: str) -> dict[str, bytes] | None:
        """The files of a data set at a revision; None if there is none of that name."""
        hub = self.server
        if revision in ("main", f"{hub.heads.get(name, 0):040x}"):
            return hub.repos[name]
        for tag, (oid, _, files) in hub.tags.get(name, {}).items():
            if revision in (tag, oid):
                return files
        return None

    def _tag(self, name: str, revision: str, asked: dict[str, Any]) -> None:
        tags = self.server.tags.setdefault(name, {})
        files = self._at(name, revision)
        if files is None:
            return self._send(404, {"error": "Revision not found"})
        if asked["tag"] in tags:
            return self._send(409, {"error": "Tag reference exists already"})
        oid = f"{self.server.heads.get(name, 0):040x}" if revision == "main" else revision
        tags[asked["tag"]] = (oid, asked.get("message"), dict(files))
        return self._send(200, {})

    def _collect(self, path: str, asked: dict[str, Any]) -> None:
        found = self.server.collections
        if path == "/api/collections":
            slug = f"{asked['namespace']}/{asked['title'].lower().replace(' ', '-')}-{'0' * 24}"
            there = slug in found
            found.setdefault(slug, [])
            return self._send(409 if there else 200, self._collection(slug))
        slug = path.removeprefix("/api/collections/").removesuffix("/items")
        if slug not in found:
            return self._send(404, {"error": "Collection not found"})
        if path.endswith("/items"):
            if asked["item"]["id"] in found[slug]:
                return self._send(409, {"error": "It is there already"})
            assert asked["item"]["type"] == "dataset"
            found[slug].append(asked["item"]["id"])
        return self._send(200, self._collection(slug))

    def _collection(self, slug: str) -> dict[str, Any]:
        at = "2026-01-01T00:00:00.000Z"
        owner = {"name": slug.partition("/")[0]}
        about = {"slug": slug, "title": slug, "owner": owner, "items": [], "lastUpdated": at}
        return {**about, "position": 0, "private": False, "theme": "blue", "upvotes": 0}

    def _resolve(self, name: str, revision: str, path: str) -> None:
        files = self._at(name, revision) if name in self.server.repos else None
        if files is None or path not in files:
            code = "EntryNotFound" if files is not None else "RevisionNotFound"
            return self._send(404, {"error": "Not found"}, {"X-Error-Code": code})
        data = files[path]
        whole, status = (
            {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": self._oid_of(name, revision)},
            200,
        )
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            data = data[int(found[1]) : int(found[2]) + 1 if found[2] else None]
            status = 206
        return self._send(status, data, whole)

    def _oid_of(self, name: str, revision: str) -> str:
        if revision in (tags := self.server.tags.get(name, {})):
            return tags[revision][0]
        head = f"{self.server.heads.get(name, 0):040x}"
        return head if revision == "main" else revision

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.server.endpoint}/datasets/{name}", "name": name}
        if name in self.server.repos:
            return self._send(409, {"error": "You already created this dataset repo", **url})
        assert asked["type"] == "dataset"
        self.server.repos[name] = {".gitattributes": b"*.parquet filter=lfs\n"}
        self.server.private[name] = asked.get("visibility") == "private"
        return self._send(200, url)

    def _repo(self, name: str, action: str | None, files: dict[str, bytes], body: bytes) -> None:
        match action:
            case None | "revision":
                siblings = [{"rfilename": path} for path in files]
                private = self.server.private[name]
                sha = f"{self.server.heads.get(name, 0):040x}"
                answer = {"id": name, "private": private, "siblings": siblings, "sha": sha}
                return self._send(200, {**answer, "tags": [], "downloads": 0, "likes": 0})
            case "refs":
                tags = [
                    {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid}
                    for tag, (oid, *_) in self.server.tags.get(name, {}).items()
                ]
                return self._send(200, {"branches": [], "converts": [], "tags": tags})
            case "tree":
                # All below a folder, as it is always asked for.
                below = unquote("/".join(self.path.split("?")[0].split("/")[7:]))
                found = [path for path in files if path.startswith(below and f"{below}/")]
                return self._send(200, [self._entry(path, files[path]) for path in found])
            case "paths-info":
                asked = parse_qs(body.decode())["paths"]
                return self._send(200, [self._entry(p, files[p]) for p in asked if p in files])
            case "preupload":
                asked = json.loads(body)["files"]
                return self._send(200, {"files": [self._mode(files, f["path"]) for f in asked]})
            case "commit":
                return self._committed(name, body)
        return self._send(404, {"error": action})

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        lfs = {"oid": sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        entry = {"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
        return {**entry, "oid": "f" * 40, "lfs": lfs} if self._is_lfs(path) else entry

    def _is_lfs(self, path: str) -> bool:
        return self.server.lfs and path.endswith(".parquet")

    def _mode(self, files: dict[str, bytes], path: str) -> dict[str, Any]:
        mode = {"path": path, "uploadMode": "regular", "shouldIgnore": False}
        if self._is_lfs(path):
            oid = {"oid": sha256(files[path]).hexdigest()} if path in files else {}
            return {**mode, "uploadMode": "lfs", **oid}
        return {**mode, "oid": _oid(files[path])} if path in files else mode

    def _action(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["oid"] in self.server.stored:
            return asked
        store = {"href": f"{self.server.endpoint}/store/{asked['oid']}"}
        return {**asked, "actions": {"upload": store}}

    def _committed(self, name: str, body: bytes) -> None:
        hub = self.server
        header = json.loads(body.splitlines()[0])["value"]
        hub.heads[name] = hub.heads.get(name, 0) + (len(hub.committed) == hub.other)
        if header.get("parentCommit") != f"{hub.heads[name]:040x}":
            return self._send(412, {"error": "A commit has happened since"})
        is_cut = len(hub.committed) == hub.cut
        if is_cut and not hub.lost:
            return self._send(503, {"error": "cut"})
        self._commit(hub.repos[name], body)
        hub.commits.append(dict(hub.repos[name]))
        hub.heads[name] += 1
        if is_cut:
            return self._send(504, {"error": "too slow"})
        oid = f"{hub.heads[name]:040x}"
        commit = {"commitUrl": f"{hub.endpoint}/datasets/{name}/commit/{oid}"}
        return self._send(200, {**commit, "commitOid": oid, "hookOutput": ""})

    def _commit(self, files: dict[str, bytes], body: bytes) -> None:
        changed = []
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                changed.append(value["path"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
                changed.append(value["path"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
                changed.append(f"-{value['path']}")
        self.server.committed.append(changed)

    def _send(
        self, status: int, content: Any, more: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        if self.gone:
            self.close_connection = True
            return
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in more.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _oid(data: bytes) -> str:
    return sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def served() -> Iterator[Hub]:
    """A hub that answers while the body runs."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
