"""Uploading a folder to the Hugging Face hub as a data set, and saying why where it would not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

from schemas import UsageError
from schemas.layout import MANIFEST, PUBLISHED

# The card, whose name is the hub's.
CARD = "README.md"


def check_token(endpoint: str | None) -> None:
    """Asks for the token before there is work to lose; huggingface_hub alone reads and sends it."""
    if constants.HF_HUB_OFFLINE:
        raise UsageError("HF_HUB_OFFLINE is set: unset it to upload, or give --dry-run FOLDER.")
    if not get_token():
        raise UsageError(
            f"there is no token for {endpoint or constants.ENDPOINT}: log in with `hf auth login`, "
            "or set HF_TOKEN to a token that may write; --dry-run FOLDER needs none."
        )


def upload(stage: Path, repo_id: str, private: bool, endpoint: str | None) -> str:
    """Uploads a folder; what is there already isn't sent again."""
    api = HfApi(endpoint=endpoint, library_name="attribeam")
    with _explained(repo_id, api.endpoint):
        # Who may see it is only decided where it is made: False would be against a team's default.
        api.create_repo(repo_id, repo_type="dataset", private=private or None, exist_ok=True)
        _check_repo(api.dataset_info(repo_id), repo_id, private)
        api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=stage,
            commit_message="Publish a run of attribeam",
            # Of a former publication that had more.
            delete_patterns=[f"{PUBLISHED}/*"],
        )
    return f"{api.endpoint}/datasets/{repo_id}"


def _check_repo(info: Any, repo_id: str, private: bool) -> None:
    """Refuses a repository that is of another kind, or open to more people than asked for."""
    there = {sibling.rfilename for sibling in info.siblings or ()}
    if there - {".gitattributes", CARD} and MANIFEST not in there:
        raise UsageError(
            f"{repo_id} holds something else than a run: give the name of a new data set."
        )
    if private and not info.private:
        raise UsageError(
            f"{repo_id} exists and is public: make it private in its settings, or give another "
            "name."
        )


@contextmanager
def _explained(repo_id: str, endpoint: str) -> Iterator[None]:
    """Says in a sentence what the hub would not do, and what to do about it."""
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        said = " ".join((error.server_message or "").split()).replace(get_token() or "\0", "***")
        reason = f" ({said})" if said else ""
        raise UsageError(_remedy(status, repo_id, endpoint) + reason + ".") from error
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        said = said.replace(get_token() or "\0", "***")
        raise UsageError(
            f"{endpoint} can't be reached, or the upload broke off ({said}): the same command "
            "continues."
        ) from error


def _remedy(status: int, repo_id: str, endpoint: str) -> str:
    match status:
        case 401:
            return f"{endpoint} does not know the token: log in again with `hf auth login`"
        case 403 | 404:
            return (
                f"the token may not write to {repo_id}: give a name under your own account, or a "
                "token with write access to that one"
            )
        case 400 | 422:
            return f"{endpoint} refuses the card of {repo_id}: see --license and --language"
        case 413 | 507:
            return f"{endpoint} has no room for {repo_id}: give fewer --methods"
        case _:
            return f"{endpoint} answered {status}: the same command continues"
