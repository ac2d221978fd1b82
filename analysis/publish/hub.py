"""Uploading a folder to the Hugging Face hub as a data set, and saying why where it would not."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_session,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]
from huggingface_hub.hf_api import RepoFile

from attribeam.analysis.publish.commits import NOTE, Commit, commits, parts
from attribeam.analysis.publish.versions import Former, changes, newest, next_name, said_of
from attribeam.schemas import UsageError
from attribeam.schemas.layout import CARD, MANIFEST, UNFINISHED
from attribeam.schemas.manifest import VersionRecord

_CONTINUES = "the same command continues"
_MAY_NOT = (
    "the token may not write to {repo}: give a name under your own account, or a token with write "
    "access to that one"
)
_REFUSED = "{endpoint} refuses what {repo} would hold"
_CHANGED = f"{{repo}} was changed by somebody else meanwhile: {_CONTINUES}"
_FULL = "{endpoint} has no room for {repo}: give fewer --methods"
# What is told of the statuses that the hub answers with.
_SAID = {
    400: _REFUSED,
    401: "{endpoint} does not know the token, or not any more: log in again with `hf auth login`, "
    f"and {_CONTINUES}",
    403: _MAY_NOT,
    404: _MAY_NOT,
    409: _CHANGED,
    412: _CHANGED,
    413: _FULL,
    422: _REFUSED,
    429: f"{{endpoint}} takes no more for now: wait a while, and {_CONTINUES}",
    507: _FULL,
}


def check_token(endpoint: str | None) -> None:
    """Asks for the token before there is work to lose; huggingface_hub alone reads and sends it."""
    if constants.HF_HUB_OFFLINE:
        raise UsageError("HF_HUB_OFFLINE is set: unset it to upload, or give --dry-run FOLDER.")
    if not get_token():
        raise UsageError(
            f"there is no token for {endpoint or constants.ENDPOINT}: log in with `hf auth login`, "
            "or set HF_TOKEN to a token that may write; --dry-run FOLDER needs none."
        )


class Uploaded(NamedTuple):
    """What was uploaded: where the data set is, and the tag of its version."""

    url: str
    version: str


def upload(
    stage: Path,
    repo_id: str,
    private: bool,
    endpoint: str | None,
    *,
    finish: Callable[[list[VersionRecord]], None] = lambda _: None,
    collection: str | None = None,
) -> Uploaded:
    """Uploads a folder; what is there already isn't sent again.

    What files hold is sent first, and shows nowhere before it is committed
    (``attribeam.analysis.publish.commits``). What is new then is a version, which is tagged.

    Args:
        stage: The folder.
        repo_id: The data set; it is made if there is none.
        private: Make it private.
        endpoint: Address of the hub; None for the usual one.
        finish: Writes what versions after the first one changed into the folder's manifest and
            card.
        collection: The hub's collection that it is added to: its slug, or the title of one of the
            data set's owner, which is made if there is none.

    Raises:
        UsageError: If the hub refuses or can't be reached, or the data set is something else.
    """
    api = HfApi(endpoint=endpoint, library_name="attribeam")
    with _explained(repo_id, api.endpoint):
        _check_card((stage / CARD).read_text(encoding="utf-8"), api.endpoint)
        # Who may see it is only decided where it is made: False would be against a team's default.
        api.create_repo(repo_id, repo_type="dataset", private=private or None, exist_ok=True)
        info = api.dataset_info(repo_id)
        # After its revision: were it changed in between, the first commit would be refused.
        listed = api.list_repo_tree(repo_id, recursive=True, repo_type="dataset")
        there = {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}
        _check_repo(there, info, repo_id, private)
        repo = _Repo(api, repo_id, there, info.sha)
        version = _upload_version(repo, stage, finish)
        if collection is not None:
            _collect(api, repo_id, collection, private)
    return Uploaded(f"{api.endpoint}/datasets/{repo_id}", version)


@dataclass(frozen=True)
class _Repo:
    """A data set of the hub as it was at a revision: its files by path."""

    api: HfApi
    name: str
    there: Mapping[str, RepoFile]
    revision: str | None

    def tag(self, name: str, revision: str | None, message: str | None = None) -> None:
        """Gives a revision a name."""
        self.api.create_tag(
            self.name,
            tag=name,
            tag_message=message,
            revision=revision,
            repo_type="dataset",
            exist_ok=True,
        )

    def manifest(self, revision: str | None) -> bytes:
        """``run.json`` at a revision."""
        with tempfile.TemporaryDirectory(prefix="attribeam-publish-") as folder:
            path = self.api.hf_hub_download(
                self.name, MANIFEST, repo_type="dataset", revision=revision, local_dir=folder
            )
            return Path(path).read_bytes()


def _upload_version(repo: _Repo, stage: Path, finish: Callable[[list[VersionRecord]], None]) -> str:
    """Makes the data set what the folder holds; returns the tag of that version."""
    tags = {tag.name for tag in repo.api.list_repo_refs(repo.name, repo_type="dataset").tags}
    former = _former(repo, tags)
    # As it would be if nothing had changed: a version that is there is not made again.
    finish(former.history if former else [])
    if former is not None and not _planned(repo, stage)[0]:
        return former.name
    name = next_name(former, tags)
    message = None
    if former is not None:
        new: VersionRecord = {
            "version": name,
            "changes": changes(former.manifest, json.loads((stage / MANIFEST).read_bytes())),
        }
        finish([*former.history, new])
        message = said_of(new)
    repo.tag(name, _commit(repo, stage), message)
    return name


def _former(repo: _Repo, tags: Collection[str]) -> Former | None:
    """The version that was published last, which is tagged if it isn't yet; None if there is none.

    Where an upload broke off that is the last tag, since what is there is none.
    """
    if MANIFEST in repo.there and UNFINISHED not in repo.there:
        former = Former.of(repo.manifest(repo.revision))
        if former.name not in tags:
            # Of before versions were tagged, or the answer was lost.
            repo.tag(former.name, repo.revision, former.message)
        return former
    last = newest(tags)
    return None if last is None else Former.of(repo.manifest(last))


def _collect(api: HfApi, repo_id: str, collection: str, private: bool) -> None:
    """Adds the data set to a collection."""
    slug = collection
    if "/" not in collection:
        owner = repo_id.partition("/")[0]
        slug = api.create_collection(
            collection, namespace=owner, private=private, exists_ok=True
        ).slug
    try:
        api.add_collection_item(slug, item_id=repo_id, item_type="dataset", exists_ok=True)
    except HfHubHTTPError as error:
        if error.response.status_code not in (403, 404):
            raise
        raise UsageError(
            f"{repo_id} is published, but there is no collection {collection} that the token may "
            "write to: --collection takes its slug, user/title-0123456789ab, or a title"
        ) from error


def _check_card(text: str, endpoint: str) -> None:
    """Has the hub look at the card before anything is sent, since it is committed last."""
    answer = get_session().post(
        f"{endpoint}/api/validate-yaml", json={"content": text, "repoType": "dataset"}
    )
    if answer.status_code == 400:
        errors = [str(error.get("message")) for error in answer.json().get("errors", [])]
        said = " ".join("; ".join(errors).split())
        raise UsageError(
            f"{endpoint} refuses the card ({said}): see --license, --language and --title."
        )


def _check_repo(there: Mapping[str, RepoFile], info: Any, repo_id: str, private: bool) -> None:
    """Refuses a repository that is of another kind, or open to more people than asked for."""
    foreign = sorted({*there} - {".gitattributes", CARD})
    if foreign and MANIFEST not in there and UNFINISHED not in there:
        raise UsageError(
            f"{repo_id} holds something else than a run ({foreign[0]}): give the name of a new "
            "data set."
        )
    if private and not info.private:
        raise UsageError(
            f"{repo_id} exists and is public: make it private in its settings, or give another "
            "name."
        )


def _planned(repo: _Repo, stage: Path) -> tuple[list[Commit], list[str]]:
    """The commits that make the data set what the folder holds, and the files that are sent."""
    files = sorted(p.relative_to(stage).as_posix() for p in stage.rglob("*") if p.is_file())
    changed = [path for path in files if not _is_same(stage / path, repo.there.get(path))]
    return commits(repo.there, files, changed), changed


def _commit(repo: _Repo, stage: Path) -> str | None:
    """Makes the data set what the folder holds, on top of its revision; returns the new one."""
    api, repo_id, revision = repo.api, repo.name, repo.revision
    planned, changed = _planned(repo, stage)
    sent = {path: CommitOperationAdd(path, stage / path) for path in changed}
    for part in parts(changed):
        # In parts, since the store keeps what was sent whole, and may forget what was not.
        api.preupload_lfs_files(
            repo_id, [sent[path] for path in part], repo_type="dataset", free_memory=False
        )
    for path in (path for commit in planned for path in commit.add if path not in sent):
        # The note, and what an earlier of these commits takes away: asked about only when its turn
        # comes, since what the hub has already is left out of a commit.
        content = NOTE.encode() if path == UNFINISHED else stage / path
        sent[path] = CommitOperationAdd(path, content)
    for commit in planned:
        done = api.create_commit(
            repo_id,
            [
                *(CommitOperationDelete(path, is_folder=False) for path in commit.delete),
                *(sent[path] for path in commit.add),
            ],
            commit_message=commit.message,
            repo_type="dataset",
            # So that two who publish at once can't mix: the second one is refused.
            parent_commit=revision,
        )
        revision = done.oid
    return revision


def _is_same(file: Path, there: RepoFile | None) -> bool:
    """Whether a file of the data set has the contents of one here."""
    if there is None or there.size != file.stat().st_size:
        return False
    if there.lfs is not None:
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest() == there.lfs.sha256
    data = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == there.blob_id


@contextmanager
def _explained(repo_id: str, endpoint: str) -> Iterator[None]:
    """Says in a sentence what the hub would not do, and what to do about it."""
    try:
        yield
    except UsageError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code
        said = " ".join((error.server_message or "").split()).replace(get_token() or "\0", "***")
        reason = f" ({said})" if said else ""
        raise UsageError(_remedy(status, repo_id, endpoint) + reason + ".") from error
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        said = said.replace(get_token() or "\0", "***")
        raise UsageError(
            f"{endpoint} can't be reached, or the upload broke off ({said}): {_CONTINUES}."
        ) from error


def _remedy(status: int, repo_id: str, endpoint: str) -> str:
    said = _SAID.get(status, f"{{endpoint}} answered {status}: {_CONTINUES}")
    return said.format(endpoint=endpoint, repo=repo_id)
