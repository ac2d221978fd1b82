"""As much of the Hugging Face hub as making a data set and uploading files needs."""

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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
        found = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/(\w+)/main)?", path)
        if found is None or found[1] not in hub.repos:
            return self._send(404, {"error": "Repository not found"})
        return self._repo(found[1], found[2], body)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        url = {"url": f"{self.server.endpoint}/datasets/{name}", "name": name}
        if name in self.server.repos:
            return self._send(409, {"error": "You already created this dataset repo", **url})
        assert asked["type"] == "dataset"
        self.server.repos[name] = {".gitattributes": b"*.parquet filter=lfs\n"}
        self.server.private[name] = asked.get("visibility") == "private"
        return self._send(200, url)

    def _repo(self, name: str, action: str | None, body: bytes) -> None:
        files = self.server.repos[name]
        match action:
            case None | "revision":
                siblings = [{"rfilename": path} for path in files]
                private = self.server.private[name]
                sha = f"{self.server.heads.get(name, 0):040x}"
                answer = {"id": name, "private": private, "siblings": siblings, "sha": sha}
                return self._send(200, {**answer, "tags": [], "downloads": 0, "likes": 0})
            case "tree":
                return self._send(
                    200,
                    [self._entry(path, data) for path, data in files.items()],
                )
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

    def _send(self, status: int, content: Any) -> None:
        if self.gone:
            self.close_connection = True
            return
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
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
