"""Boil the parser's errors down to one line: what is wrong, what comes near, and where it is written.

jsonargparse reports a mistake inside a class as a tree with one branch for each type that was tried. The first
branch that is no ``NoneType`` is the one that was meant; its last complaint is the mistake.
"""

import inspect
import pydoc
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dfl.data import DataModule
from dfl.data.sources import Source
from dfl.detectors import Detector
from dfl.errors import near, subclasses

#: What the value of an option is, by the option's last name; any other is taken for a source of data.
KINDS: dict[str, tuple[str, type]] = {
    "model": ("detector", Detector),
    "data": ("data module", DataModule),
    "optimizer": ("optimizer", Optimizer),
    "scheduler": ("scheduler", LRScheduler),
    "callbacks": ("callback", Callback),
    "logger": ("logger", Logger),
}


def explain(message: str, known: list[str], words: list[str], files: list[str]) -> str:
    """Return the one line that says what is wrong.

    Args:
        message: Error of jsonargparse.
        known: All options of the verb, such as ``trainer.max_epochs``.
        words: What the user typed.
        files: Configs that were read; a mistake that was not typed is looked for there.
    """
    key = ".".join(re.findall(r'(?:Parser key|key) "([\w.+]+)":', message))
    if hit := re.search(r"[Oo]ption '([\w.+]+)' is not accepted", message):
        return _no_option(key, hit[1], _class_before(message, hit.start())) + _where(hit[1], words, files)
    if hit := re.search(r"Expected a dot import path string: ([^\s,]+)|Unexpected import path format: (\S+)", message):
        name = hit[1] or hit[2]
        if key.rpartition(".")[2] in KINDS or not re.search(r"Expected a <class '(int|float|bool|str)'>", message):
            return _no_class(key, name, message[: hit.start()]) + _where(name, words, files)
    if hit := re.search(
        r"(?:Problem with given class_path|Import of) '([\w.]+)'[^\n]*\n?[^\n]*No module named", message
    ):
        return f"{key or 'config'}: no class {hit[1]!r} can be imported" + _where(hit[1], words, files)
    if hit := re.search(r"does not accept option '([\w.+]+)'", message):
        return f"no option {hit[1]!r}" + _near_option(hit[1], known) + _where(hit[1].rpartition(".")[2], words, files)
    if hit := re.search(r"unrecognized arguments: (\S+)", message):
        flag = hit[1].partition("=")[0]
        return f"no option {flag}" + _near_option(flag.lstrip("-"), known)
    if hit := re.search(r"the following arguments are required: ([^\n]+)", message):
        return _required(key, hit[1], message)
    if hit := re.search(r"but ([\w.]+) is abstract", message):
        return f"{key} takes a class as class_path and its arguments as init_args; {hit[1]} alone is no class to build"
    if hit := re.search(r"Key must be a string, got: (.*)\.", message):
        return f"names of options are words, and {hit[1]} is none" + _where(hit[1], words, files)
    if "Expected a" in message:
        return _wrong_type(key, message, words, files)
    return message.replace("Subcommand ", "verb ")


def of_constructor(message: str) -> str | None:
    """Return what a class said that could not be built, out of the tree of jsonargparse; None if none did."""
    hit = re.search(r"Problem with given class_path '([\w.]+)':\s*([^\n]+)", message)
    name, said = (hit[1].rpartition(".")[2], hit[2]) if hit else ("", "")
    if not said:
        tree = ("Expected a", "Not a valid subclass", "Does not validate", "Import path", "Problem with")
        lines = [line for line in re.findall(r"^\s*- ([^\n]+)", message, re.M) if not line.startswith(tree)]
        built = re.findall(r"class_path='([\w.]+)'", message)
        if not lines or not built:
            return None
        name, said = built[0].rpartition(".")[2], lines[0]
    return f"{name}: {missing_package(said) or said}"


def of_trainer(error: Exception) -> str:
    """Return in one line why there is no trainer with these settings.

    Raises:
        Exception: The error itself, if it is nothing that settings can mend.
    """
    said = str(error)
    if isinstance(error, RuntimeError):
        if "more than one stateful callback" not in said:
            raise error
        return f"trainer.callbacks: {said.partition('.')[0]}; keep one"
    return missing_package(said) or said


def missing_package(message: str) -> str | None:
    """Return how to get the package that is asked for; None if none is."""
    if hit := re.search(r"Requirement '([^']+)' not met", message):
        return f"the package {hit[1]} is not installed: pip install '{hit[1]}', or leave out what needs it"
    if hit := re.search(r"No module named '([\w.]+)'", message):
        return f"the package {hit[1].partition('.')[0]} is not installed, or leave out what needs it"
    return None


def _class_before(message: str, position: int) -> type | None:
    """Return the class that a complaint is about: the last one named before it, else the first after it."""
    before = re.findall(r"class_path '([\w.]+)'", message[:position])
    if "expects a function or a callable class" in message[:position]:
        before = re.findall(r"class_path='([\w.]+)'", message[position:])[:1] or before
    found = pydoc.locate(before[-1]) if before else None
    return found if isinstance(found, type) else None


def _options(cls: type) -> list[str]:
    """Return the names of a class's arguments; those of its bases too where it passes ``**kwargs`` on."""
    names: list[str] = []
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = list(inspect.signature(base.__init__).parameters.values())[1:]  # type: ignore[misc]
        names += [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def _subclasses(cls: type) -> list[str]:
    """Return the names of a class and its subclasses that are imported, concrete and public."""
    classes = (cls, *subclasses(cls))
    return sorted({c.__name__ for c in classes if not inspect.isabstract(c) and not c.__name__.startswith("_")})


def _no_option(key: str, option: str, cls: type | None) -> str:
    where = f"{key} ({cls.__name__})" if cls else key
    return f"{where} has no option {option!r}" + (near(option, _options(cls)) if cls else "")


def _no_class(key: str, name: str, before: str) -> str:
    kind, base = KINDS.get(key.rpartition(".")[2], ("source", Source))
    if base is Source:
        # the type that was expected is named in the tree, e.g. <class 'dfl.data.transforms.Transform'>
        subtypes = re.findall(r"Subtypes: (.*)", before)
        for word in re.findall(r"[\w.]+\.[A-Z]\w+", subtypes[-1] if subtypes else ""):
            expected = pydoc.locate(word)
            if isinstance(expected, type) and not issubclass(expected, Source):
                kind, base = expected.__name__.lower(), expected
    return f"{key}: no {kind} named {name!r}" + near(name, _subclasses(base))


def _near_option(flag: str, known: list[str]) -> str:
    """Return the option that comes near: by its whole name, by its first part, or a bare name by its last part."""
    head, _, tail = flag.partition(".")
    close = get_close_matches(flag, known, n=1)
    if not close and not tail:
        close = [k for k in known if k.rpartition(".")[2] == flag]
    elif not close:
        close = [f"{k}.{tail}" for k in get_close_matches(head, [k for k in known if "." not in k], n=1)]
    return f"; did you mean --{close[0]}?" if close else ""


def _required(key: str, names: str, message: str) -> str:
    missing = [name.strip() for name in names.split(",")]
    if key:
        classes = re.findall(r"class_path='([\w.]+)', init_args=Namespace\(" + re.escape(missing[0]) + "=", message)
        return f"{key} needs {', '.join(missing)}" + (f" ({classes[0].rpartition('.')[2]})" if classes else "")
    verb = missing[0].partition(".")[0]
    needs = " and ".join(f"--{name.partition('.')[2] or name}" for name in missing)
    trained = "--ckpt_path best to take a trained run, or " if verb in ("validate", "test") else ""
    return f"{verb} lacks {needs}; give {trained}--config NAME.yaml (dfl list shows what there is)"


def _wrong_type(key: str, message: str, words: list[str], files: list[str]) -> str:
    wanted: list[str] = []
    for hit in re.findall(
        r"Expected an? (?:<class '([\w.]+)'>|typing\.(Literal\[.*?\])|([\w.]+(?:\[.*?\])?))", message
    ):
        name = next(filter(None, hit))
        if name.startswith("Literal["):
            wanted += re.findall(r"'([^']+)'", name)
        elif name not in ("NoneType", "path", "dot"):
            wanted.append(name.rpartition(".")[2])
    wanted = list(dict.fromkeys(wanted))
    given = re.findall(r"(?:Got value|Given value): (?:NestedArg\(key='[^']*', val=(.*)\)|(.*))", message)
    value = (given[0][0] or given[0][1]).partition(". Got value:")[0].strip("'") if given else ""
    choices = [w for w in wanted if w not in ("int", "float", "bool", "str", "list", "dict", "Iterable", "Tensor")]
    hint = near(value, choices) if choices and "did you mean" in near(value, choices) else ""
    takes = ", ".join(w for w in wanted if w != "Tensor").replace("Iterable", "list")
    takes = takes or "a class, written as class_path and init_args"
    return f"{key} takes {takes}, not {value!r}{hint}" + _where(value, words, files)


def _where(word: str, words: list[str], files: list[str]) -> str:
    """Return the file and line that hold a word which was not typed; empty if it was typed or is nowhere."""
    if not word or any(word in typed for typed in words):
        return ""
    for name in files:
        lines = Path(name).read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", line.partition("#")[0]):
                return f" (line {number} of {name})"
    return ""


def options(parser: Any) -> list[str]:
    """Return the names of a verb's options without dashes; those of every detector and data module too."""
    names = {flag[2:] for action in parser._actions for flag in action.option_strings if flag.startswith("--")}
    for key in ("model", "data"):
        base = KINDS[key][1]
        for cls in (base, *subclasses(base)):
            names |= {f"{key}.{option}" for option in _options(cls)}
    return sorted(names - {name for name in names if name.endswith(".help")})
