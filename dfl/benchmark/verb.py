"""``dfl benchmark``: methods x domains in one honest table, from files of predictions, with intervals.

    dfl benchmark toy                                 a packaged spec; what is done already is not repeated
    dfl benchmark my.yaml --jobs 4                    four runs at once, each with a GPU of its own where there are any
    dfl benchmark my.yaml --slurm partition=gpu,time=600      runs as jobs of a cluster; the same command collects
    dfl benchmark my.yaml --views centre,five         corners of the image too, in place of the views of the spec
    dfl benchmark my.yaml --trainer.precision bf16-mixed      other options are those of fit and test

A spec names runs (configs to train, checkpoints, or files of scores) and domains (sources). Predictions go to
``<output>/predictions``, tables and the page beside them. See docs/benchmark.md.
"""

from collections.abc import Sequence
from typing import Any

from dfl.benchmark import work
from dfl.benchmark.spec import read
from dfl.cli.verbs import call
from dfl.cli.words import pairs
from dfl.errors import UserError

#: Options of the benchmark itself; all others are those of ``fit`` and ``test``.
OWN = ("output", "name", "root", "views", "jobs", "slurm", "only", "seed")
WHAT = "Train what is missing, test everything, and write tables and a page; see the top of this help."


def split(words: list[str], options: Sequence[str], verb: str, help: str) -> tuple[list[str], list[str]]:
    """Return the words that are for a verb itself, its file first, and those for ``fit`` and ``test``.

    Args:
        words: As typed, after the verb; of none and of a wish for help the help is printed.
        options: Of the verb itself.
        verb: Its name.
        help: What it is.

    Raises:
        UserError: For options that the verb's file stands for.
    """
    if not words or words[0] in ("-h", "--help"):
        print(help.strip() + "\n")
    own: list[str] = []
    others: list[str] = []
    for flag, value in pairs(["--output" if word == "-o" else word for word in words]):
        typed = flag if value is None else f"{flag}={value}"
        if flag in ("-c", "--config", ""):
            own.insert(0, str(value))
        elif flag.removeprefix("--") in (*options, "help") or flag == "-h":
            own.append(typed)
        elif flag in ("--data", "--ckpt_path"):
            raise UserError(f"{flag} is not for a {verb}: its file says which images and checkpoints there are")
        else:
            others.append(typed)
    return own or ["--help"], others


def main(words: list[str]) -> Any:
    """Run the verb, from the words after ``dfl benchmark``; return the content of ``benchmark.json``.

    Raises:
        UserError: For whatever the user can mend.
    """
    own, others = split(words, OWN, "benchmark", __doc__ or "")

    def run(
        spec: str,
        output: str | None = None,
        name: str | None = None,
        root: str = ".",
        views: str | None = None,
        jobs: int = 1,
        slurm: str | None = None,
        only: str | None = None,
        seed: int = 0,
    ) -> Any:
        """Run a benchmark.

        Args:
            spec: The spec file, or the name of a packaged one.
            output: Folder of predictions, tables and page; by default ``lightning_logs/NAME`` under the root.
            name: Beginning of the names of the runs; by default that of the spec.
            root: Folder that holds ``checkpoints/`` and ``lightning_logs/``.
            views: In place of those of the spec: centre, five, tiles; several with commas between them.
            jobs: Runs at once; each has a GPU of its own, where there are any.
            slurm: Settings of a cluster's jobs, such as ``partition=gpu,time=600,cpus_per_task=8``.
            only: One run, ``METHOD/SEED``, and no tables.
            seed: Seed of the resamples.
        """
        return work.run(read(spec, output, root, name, views), others, jobs, slurm, only, seed, ["benchmark", *words])

    first = ("spec", "1", "The spec, with or without --config before it.")
    return call(run, own, "dfl benchmark", WHAT, first)
