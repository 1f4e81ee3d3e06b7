"""Entry point of ``python -m dfl`` and ``dfl``: cheap questions are answered here, without torch.

Each verb that needs more is imported only when it is asked for. What the user can mend is one line on stderr and
exit code 2 (1 where nothing could be scored), and so is what the file system refuses; ``--debug``, anywhere among the
words, shows the traceback instead.
"""

import io
import os
import select
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

from dfl import __version__
from dfl.cli import configs
from dfl.errors import INTERRUPTED, PREEMPTED, UserError, near, of_files, refused, visible

#: Exit code that shells give for a program whose reader has left (SIGPIPE).
UNREAD = 141
#: Characters of the line that tells an error; a name or a value in it may be of any length.
LONGEST = 1200
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
    "audit": ("dfl.fairness.audit", "compare groups of people: dfl audit SCORES.csv, or --ckpt_path ... --data ..."),
    "benchmark": ("dfl.benchmark.verb", "methods x domains in one honest table: dfl benchmark SPEC.yaml"),
    "report": ("dfl.benchmark.report", "the same from files of predictions: dfl report PREDICTIONS..."),
    "matrix": ("dfl.benchmark.matrix", "train on each domain, test on all: dfl matrix --config SWEEP.yaml"),
    "info": ("dfl.cli.info", "what a checkpoint is, and what its scores mean: dfl info NAME or FILE"),
    "export": ("dfl.sharing.export", "write a detector for other programs: dfl export CKPT -o FOLDER --to onnx"),
    "push": ("dfl.sharing.push", "share a detector on the Hugging Face hub: dfl push RUN user/repo"),
    "data": ("dfl.tools", "look at data sets and mend them: dfl data VERB SOURCE..."),
    "serve": ("dfl.sharing.serve", "answer over HTTP, with a page: dfl serve --ckpt_path FILE"),
    "doctor": ("dfl.cli.doctor", "is all there? versions, devices, extras, disk; a config's weights and data"),
    "forge": ("dfl.tools.forge", "make fakes of real images, partial ones with true masks: dfl forge SOURCE..."),
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
    """Run one command; return the ``CLI`` object of verbs that start Lightning, for others what they return.

    Args:
        argv: The words after ``dfl``; by default those of the process.

    Raises:
        SystemExit: With 2 for what the user can mend, 1 where nothing was scored, 130 after Ctrl-C. Never on success.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "--debug" in words:
        return dispatch([word for word in words if word != "--debug"])
    try:
        return dispatch(words)
    except UserError as error:
        end(str(error), error.code)
    except OSError as error:
        if not of_files(error):
            raise
        end(str(refused(error)))
    except UnicodeEncodeError as error:  # a name that is no UTF-8 is in the way of the libraries that write it
        setting = "" if sys.getfilesystemencoding() == "utf-8" else ", or set PYTHONUTF8=1"
        end(f"{error.object[:LONGEST]!r} cannot be written as {error.encoding}: rename it{setting}")
    except RecursionError:
        end("a config or an argument is nested too deeply to be read (--debug shows where)")
    except KeyboardInterrupt:
        end("stopped by Ctrl-C", INTERRUPTED)
    except SystemExit as stop:
        # Lightning turns Ctrl-C into exit(1) after its clean-up
        if isinstance(stop.__context__, KeyboardInterrupt):
            end("stopped by Ctrl-C", INTERRUPTED)
        raise


def end(message: str, code: int = 2) -> NoReturn:
    """Say one line on stderr and leave."""
    print(f"dfl: {one_line(message)}", file=sys.stderr)
    raise SystemExit(code) from None


def _preempted(number: int, frame: FrameType | None) -> None:
    """End the command. Left to themselves, Lightning's handlers let `predict` go on, and end `test` with 0."""
    signal.signal(number, signal.SIG_IGN)  # once is enough
    os.write(2, f"\ndfl: stopped by {signal.Signals(number).name}\n".encode())
    raise SystemExit(PREEMPTED)


def script() -> None:
    """Run the command of this process, whatever its terminal can show and however long somebody reads.

    What the terminal cannot show, such as a path in an ASCII one, is printed as ``\\xe9``. A reader that leaves, as
    ``head`` does, ends the command without a word. SIGTERM and SIGUSR1 end it in order, as Ctrl-C does; in training
    ``Preemption`` has them.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = _in_thread
    for name in ("SIGTERM", "SIGUSR1"):
        if number := getattr(signal, name, None):  # Windows has one of them
            signal.signal(number, _preempted)
    try:
        try:
            main()
        finally:
            _flush()
    except BrokenPipeError:
        if not _nobody_reads():  # a pipe between processes of our own
            raise
        _discard(1, 2)
        raise SystemExit(UNREAD) from None


def _in_thread(failure: threading.ExceptHookArgs) -> None:
    """Say nothing of a full disk in a thread, such as TensorBoard's, which hands the error on to who writes next."""
    if not (isinstance(failure.exc_value, OSError) and of_files(failure.exc_value)):
        threading.__excepthook__(failure)


def _flush() -> None:
    """Write what was printed; left to the end of Python, a full disk would be a traceback."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard(1)
        end(str(refused(error, "standard output", "write")))


def _discard(*streams: int) -> None:
    """Let what is still in the buffers go nowhere: it would be an error at the very end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in streams:
        os.dup2(nowhere, number)


def _nobody_reads() -> bool:
    """Whether the reader of standard output or standard error has left."""
    if not hasattr(select, "poll"):
        return True
    streams = select.poll()
    for number in (1, 2):
        streams.register(number, 0)  # POLLERR is always reported
    return any(event & select.POLLERR for _, event in streams.poll(0))


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
    from dfl.cli import app

    return app.main(words)


def show_list() -> None:
    """Print methods by idea, with their papers, and configs with their parameters and what they say of themselves."""
    sections: dict[str, list[tuple[str, str]]] = {idea: [] for idea in configs.IDEAS}
    counted = configs.parameters()
    for one in configs.methods():
        name = f"{one.name} (backbone)" if one.is_backbone else one.name
        facts = [f"{one.paper} {one.year}"] if one.paper else []
        facts += [f"{counted[one.name]} parameters"] if one.name in counted else []
        sections.setdefault(one.idea, []).append((name, f"{', '.join(facts)}: {one.what}" if facts else one.what))
    for name in configs.listing():
        folder = os.path.dirname(name)
        title = f"{folder} configs" if folder else "configs"
        number = f"{counted[name]:>8}  " if name in counted else ""
        sections.setdefault(title, []).append((name, number + configs.describe(name)))
    width = 2 + max((len(name) for rows in sections.values() for name, _ in rows), default=0)
    for title, rows in sections.items():
        if rows:
            print(f"{title}:")
        for name, what in rows:
            print(f"  {name:{width}}{what}".rstrip())


def one_line(message: str) -> str:
    """Fold a message into one line of bearable length; of an error from a loader process, keep what it says."""
    if "Original Traceback" in message:
        message = message.rpartition("UserError: ")[2]
    line = visible(" ".join(message.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST * 2 // 3]} ... {line[-LONGEST // 3 :]}"


if __name__ == "__main__":
    script()
