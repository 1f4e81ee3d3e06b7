"""The Hugging Face hub, where there may be no network."""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants

from dfl.errors import UserError, first_line

#: How a repository of the hub is named where a file could stand: ``hf://user/repo``, ``hf://user/repo@revision``.
BEGINS = "hf://"


@contextmanager
def without_bars() -> Iterator[None]:
    """Spare the user the bars of transformers, one for each file that is read or written."""
    from transformers.utils import logging  # slow to import

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def offline_if_no_network() -> Iterator[None]:
    """Spare the user a minute of retries where the hub's name cannot even be looked up; offline it is not looked up."""
    before = constants.HF_HUB_OFFLINE
    try:
        if not before:
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def fetch(address: str, files: Sequence[str]) -> Path:
    """Return the local folder with some files of a repository, all of one commit; no others are fetched.

    Args:
        address: ``hf://user/repo``, with ``@`` and a branch, tag or commit behind it or without.
        files: Their names.

    Raises:
        UserError: If the hub does not give them.
    """
    from huggingface_hub import snapshot_download

    repo, _, revision = address.removeprefix(BEGINS).partition("@")
    try:
        with offline_if_no_network():
            folder = Path(
                snapshot_download(
                    repo, revision=revision or None, allow_patterns=list(files), endpoint=constants.ENDPOINT
                )
            )
    except Exception as error:
        raise _refused(address, error) from error
    if absent := [name for name in files if not (folder / name).is_file()]:
        raise UserError(
            f"{address} has no {' and no '.join(absent)}: it was not written by dfl push or dfl export, or holds a "
            "Sida, of which they write parts for transformers alone: see its card"
        )
    return folder


def send(folder: Path, repo: str, private: bool) -> str:
    """Send a folder as one commit to a repository, which is made if it is not there; return the commit's hash.

    Args:
        folder: Of files.
        repo: ``user/repo``.
        private: Whether a new one is seen by its owner alone.

    Raises:
        UserError: For what the hub refuses.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        hub.create_repo(repo, private=private, exist_ok=True)
        return str(hub.upload_folder(repo_id=repo, folder_path=folder, commit_message="dfl push").oid)
    except Exception as error:
        raise _refused(repo, error) from error


def _refused(name: str, error: Exception) -> UserError:
    """Return the one line for what the hub's client raised: errors of HTTP, of names, of the disk, of no network."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    advice = "; log in by `hf auth login`, or set HF_TOKEN to a token that may do this" if status in (401, 403) else ""
    return UserError(f"{name}: {constants.ENDPOINT} says: {first_line(error)[:300]}{advice}")
