"""``dfl audit``: are groups of people treated alike? From a file of scores, or from a checkpoint and its data.

    dfl audit scores.csv                                        of any detector: score, label, group
    dfl audit --ckpt_path best --name NAME --data data/toy.yaml   scores the test domains first

A page, ``audit.html``, and all numbers, ``audit.json``, go to ``--output``. See docs/fairness.md.
"""

import math
from pathlib import Path
from typing import Any

from dfl.cli.verbs import call
from dfl.errors import UserError
from dfl.evaluation import results
from dfl.evaluation.scores import read
from dfl.fairness.examine import examine
from dfl.fairness.page import page, show
from dfl.runs.files import claimed, write

#: Options of the audit itself; with a checkpoint, all others are those of ``predict``.
OWN = ("output", "threshold", "attributes", "label_of_fake", "resamples", "seed")
WHAT = "Compare groups of people: rates with intervals, differences, tests, in a page and a JSON file."


def main(argv: list[str]) -> Any:
    """Run the verb, from the words after ``dfl audit``; return what `audit` returns.

    Raises:
        UserError: For whatever the user can mend.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "").strip() + "\n")
    words = ["--output" if word == "-o" else word for word in argv]
    if any(word.split("=")[0] == "--ckpt_path" for word in words):
        words = _predicted(words)
    first = ("scores", "1", "File of scores: .csv, .jsonl or .parquet with score, label and group.")
    return call(audit, words or ["--help"], "dfl audit", WHAT, first)


def audit(
    scores: str,
    output: str = "audit",
    threshold: float | None = None,
    attributes: str | None = None,
    label_of_fake: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare the groups in a file of scores, print the findings, and write ``audit.html`` and ``audit.json``.

    Args:
        scores: File of scores, ``.csv``, ``.jsonl`` or ``.parquet``.
        output: Folder of the page and the numbers.
        threshold: Fake from this score; by default the one in the file, or 0.5.
        attributes: Columns that make the group, such as ``gender,race``; by default the column ``group``.
        label_of_fake: The label that means fake, where it is neither 1 nor a name such as fake.
        resamples: Resamples of the intervals.
        seed: Seed of resamples and tests.

    Returns:
        The content of ``audit.json``.

    Raises:
        UserError: If the file has no score, label or group, or the output cannot be written.
    """
    if resamples < 100:
        raise UserError(f"--resamples {resamples}: an interval needs at least 100")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"--threshold {threshold} must be a score in [0, 1]")
    file, folder = Path(scores).expanduser(), Path(output).expanduser()
    if not file.is_file():
        raise UserError(f"no file {file}; give the scores of `dfl predict`, or --ckpt_path and --data")
    table = read(file, attributes, label_of_fake)
    with claimed(folder, inside=True):
        content = examine(table, math.nan if threshold is None else threshold, resamples, seed)
        write(folder / "audit.json", results.to_json(content))
        write(folder / "audit.html", page(content, str(file)))
    show(content)
    print(f"page: {folder / 'audit.html'}")
    return content


def _predicted(words: list[str]) -> list[str]:
    """Score the data with the checkpoint; return the file of scores and the options of the audit itself."""
    from dfl.cli import app
    from dfl.cli.words import pairs

    own: list[str] = []
    others: list[str] = []
    folder = "audit"
    for flag, value in pairs(words):
        if not flag:
            raise UserError(f"{value!r} stands alone; with --ckpt_path, images and their groups come from --data")
        typed = flag if value is None else f"{flag}={value}"
        # both have a seed; that of the data is --data.seed, of the run --seed_everything
        (own if flag.removeprefix("--") in OWN else others).append(typed)
        folder = str(value) if flag == "--output" else folder
    file = Path(folder).expanduser() / "predictions.csv"
    if not any(word.split("=")[0].startswith("--data") for word in others):
        raise UserError("with --ckpt_path, images and their groups come from --data, for example --data data/toy.yaml")
    app.main(["predict", *others, f"--output={file}"])
    return [str(file), *own]
