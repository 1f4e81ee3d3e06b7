"""A folder that equalize, pack, forge or toy fills: it appears under its name when it is whole.

Until then the work lies beside it, in ``.NAME.partial``, with a record of its settings, ``VERB.json``. Cut off at any
moment, the same command goes on with the next job. The bytes depend on the jobs alone, never on the number of
processes. A folder of other content, or of other settings, is never written to.
"""

import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dfl
from dfl.errors import UserError
from dfl.runs.files import claimed, write
from dfl.runs.workers import Workers

#: Packages whose version changes the bytes that are written.
WRITERS = (
    *("pillow", "simplejpeg", "torch", "pyarrow", "numpy", "opencv-python", "opencv-python-headless"),
    *("diffusers", "transformers", "onnxruntime"),
)
#: Settings that are hashes of all rows.
_HASHES = ("rows", "digest")
#: What records of earlier versions hold beside their settings, in one mapping.
_BESIDE = ("sources", "skipped", "made_with")


class OutputFolder:
    """See `output_folder`.

    Attributes:
        folder: Its name in the end.
        partial: Where the work is done.
        done: Whether the folder is there already, whole and of the same settings.
    """

    def __init__(self, folder: str | Path, verb: str, settings: dict[str, Any]) -> None:
        self.folder = Path(folder).expanduser().absolute()
        self.partial = _partial(self.folder)
        self._name, self._settings = f"{verb}.json", settings
        self._logs: set[Path] = set()
        self.done = not _empty(self.folder)
        if self.done:
            self._check(self.folder)
        elif not _empty(self.partial):
            self._check(self.partial)
        else:
            self.partial.mkdir(parents=True, exist_ok=True)
            self._record({})

    def _check(self, folder: Path) -> None:
        """Raise a UserError unless the folder was made by this verb with these settings."""
        try:
            record = json.loads((folder / self._name).read_text(encoding="utf-8"))
            before = record.get("settings") or {name: record[name] for name in record if name not in _BESIDE}
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"{folder} holds something else; give a new folder") from error
        for name in self._settings | before:
            old, new = before.get(name), self._settings.get(name)
            if old != new:
                what = "other images or other facts of them" if name in _HASHES else f"{name} {old}, now {new}"
                raise UserError(f"{folder} was made with other settings ({what}); give a new folder, or remove it")

    def _record(self, record: dict[str, Any]) -> None:
        text = json.dumps({"settings": self._settings, **record}, indent=1, ensure_ascii=False)
        write(self.partial / self._name, text)

    def results(
        self,
        function: Callable[[Any], dict[str, Any]],
        jobs: Sequence[Any],
        workers: Workers | None = None,
        stage: str = "results",
    ) -> Iterator[dict[str, Any]]:
        """Yield ``function(job)`` of each job, in order. What an earlier run that was cut off finished is not repeated.

        Without ``workers`` the jobs run in this process. Work of several stages has a log for each.

        A result is what JSON stores. Its ``files`` are those that the job wrote, below ``partial``; one with a
        ``reason`` failed, and is tried again by the next run.
        """
        log_file = self.partial / f"{stage}.jsonl"
        self._logs.add(log_file)
        finished = self._finished(log_file)
        rest = (job for i, job in enumerate(jobs) if i not in finished)
        if workers is not None:
            workers.completed(len(finished))
        missing = map(function, rest) if workers is None else workers.map(function, rest)
        with open(log_file, "w", encoding="utf-8") as log:
            for i in range(len(jobs)):
                result = finished[i] if i in finished else next(missing)
                log.write(json.dumps(result) + "\n")
                log.flush()
                yield result

    def _finished(self, log: Path) -> dict[int, dict[str, Any]]:
        """Return the results of an earlier run by the number of their job; after a power cut files may be empty."""
        finished = {}
        with suppress(OSError, ValueError):  # none yet, or the last line was cut off
            for i, line in enumerate(log.read_text(encoding="utf-8").splitlines()):
                result = json.loads(line)
                files = [self.partial / name for name in result["files"]]
                if not result.get("reason") and all(file.is_file() and file.stat().st_size for file in files):
                    finished[i] = result
        return finished

    def finish(self, **record: Any) -> None:
        """Write the record, with the versions of what wrote the files, and give the folder its name."""
        versions = {"dfl": dfl.__version__}
        for name in WRITERS:
            with suppress(importlib.metadata.PackageNotFoundError):
                versions[name] = importlib.metadata.version(name)
        self._record({**record, "versions": versions})
        for log in self._logs:
            log.unlink(missing_ok=True)
        os.replace(self.partial, self.folder)  # over an empty folder of its name


@contextmanager
def output_folder(folder: str | Path, verb: str, settings: dict[str, Any]) -> Iterator[OutputFolder]:
    """Claim a folder for this process; nothing is written to one that is ``done``.

        with output_folder("out", "pack", settings) as output:
            if not output.done:
                ...  # files in output.partial
                output.finish(images=7)

    Args:
        folder: Its name in the end.
        verb: Who fills it; the record is ``<verb>.json``.
        settings: What its content depends on, as JSON stores it.

    Raises:
        UserError: If the folder or the work beside it is of something else, another process fills it, or the file
            system refuses something.
    """
    with claimed(Path(folder)):
        yield OutputFolder(folder, verb, settings)


def begun(folder: str | Path) -> bool:
    """Whether a folder is there, or work on it that was cut off."""
    path = Path(folder).expanduser().absolute()
    return not (_empty(path) and _empty(_partial(path)))


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _empty(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
