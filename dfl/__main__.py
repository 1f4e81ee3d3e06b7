"""Entry point of ``python -m dfl`` and ``dfl``: cheap questions are answered here, without torch.

Each verb that needs more is imported only when it is asked for. What the user can mend is one line on stderr and
exit code 2 (1 where nothing could be scored); ``--debug``, anywhere on the line, shows the traceback instead.
"""

import os
import sys
from typing import Any

from dfl import __version__, config
from dfl.errors import UserError, near, visible

#: Verbs that train and evaluate; they start Lightning.
MODEL_VERBS = {
    "fit": "train a detector, or go on with --ckpt_path last",
    "validate": "score the validation domains",
    "test": "score every test domain and write the report",
    "predict": "score images and folders: dfl predict PATH...",
    "count": "count parameters and multiply-adds of a detector",
}
#: Verbs with a parser of their own: name -> (module with ``main(argv)``, what it does).
OWN_VERBS = {
    "toy": ("dfl.data.toy", "make the toy data set of the demo"),
    "audit": ("dfl.audit", "compare groups of people: dfl audit SCORES.csv, or --ckpt_path ... --data ..."),
    "matrix": ("dfl.matrix", "train on each domain, test on all: dfl matrix --config SWEEP.yaml"),
    "data": ("dfl.data.tools", "look at data sets and mend them: dfl data VERB SOURCE..."),
    "forge": ("dfl.data.forge", "make partial fakes with true masks of real images: dfl forge SOURCE..."),
}
VERBS = {**MODEL_VERBS, **{verb: what for verb, (_, what) in OWN_VERBS.items()}, "list": "show detectors and configs"}
USAGE = """usage: dfl VERB [--config NAME.yaml] [--ckpt_path best|last|FILE] [--key value ...]

verbs:
{verbs}

  dfl fit  --config vit_scl.yaml                          train
  dfl fit  --config vit_scl.yaml --ckpt_path last         go on where it stopped
  dfl test --ckpt_path best --data data/toy.yaml          score, and write the report
  dfl VERB --help                                         every option of a verb
  --debug                                                 show the traceback of an error

Names of configs are looked up in the working directory, then among the packaged ones (dfl list)."""


def main(argv: list[str] | None = None) -> Any:
    """Run one command and return what it made: the ``CLI`` object for verbs that start Lightning.

    Args:
        argv: The words after ``dfl``; by default those of the process.

    Raises:
        SystemExit: With 2 for what the user can mend, 1 where nothing was scored, 130 after Ctrl-C. Never on success.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return dispatch(words)
    except UserError as error:
        if debug:
            raise
        print(f"dfl: {one_line(str(error))}", file=sys.stderr)
        raise SystemExit(error.code) from None
    except KeyboardInterrupt:
        if debug:
            raise
        raise SystemExit(130) from None
    except SystemExit as stop:
        # Lightning turns Ctrl-C into exit(1) after its clean-up
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise SystemExit(130) from None
        raise


def script() -> None:
    """Run the command of this process; what ``main`` returns would be its exit status."""
    main()


def dispatch(words: list[str]) -> Any:
    """Answer a cheap question, or hand the words to the part that knows the verb."""
    verb = words[0] if words else "--help"
    if verb in ("-h", "--help", "help"):
        print(USAGE.format(verbs="\n".join(f"  {name:10}{what}" for name, what in VERBS.items())))
        return None
    if verb == "--version":
        print(f"dfl {__version__}")
        return None
    if verb == "list":
        show_list()
        return None
    if verb in OWN_VERBS:
        from importlib import import_module

        return import_module(OWN_VERBS[verb][0]).main(words[1:])
    if verb not in MODEL_VERBS:
        raise UserError(f"no verb {verb!r}" + near(verb, [*VERBS]))
    from dfl.orphans import end_with_rank_zero

    end_with_rank_zero()
    from dfl import cli

    return cli.main(words)


def show_list() -> None:
    """Print detectors and configs, each with its first line of documentation."""
    sections = {"detectors": list(config.detectors())}
    for name in config.listing():
        folder = os.path.dirname(name)
        sections.setdefault(f"{folder} configs" if folder else "configs", []).append((name, config.describe(name)))
    width = 2 + max((len(name) for rows in sections.values() for name, _ in rows), default=0)
    for title, rows in sections.items():
        print(f"{title}:")
        for name, what in rows:
            print(f"  {name:{width}}{what}".rstrip())


def one_line(message: str) -> str:
    """Fold a message into one line; of an error that crossed from a loader process, keep what it says."""
    if "Original Traceback" in message:
        message = message.rpartition("UserError: ")[2]
    return visible(" ".join(message.split()))


if __name__ == "__main__":
    script()
