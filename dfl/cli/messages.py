"""One line for what the parser says: the only place that reads jsonargparse's messages.

jsonargparse reports a mistake inside a class as a tree with a branch for each type that it tried. An option or a class
that does not exist, a missing value and a value of another type get a sentence, with the names that come near and the
line of the config; of anything else the parser's last line is shown.
"""

import inspect
import pydoc
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dfl.errors import chain, first_line, near, subclasses

#: Classes behind a callable, which a message does not name, by the last word of the option.
CALLABLES = {"optimizer": "torch.optim.Optimizer", "scheduler": "torch.optim.lr_scheduler.LRScheduler"}
#: Options that no near name shall be.
HIDDEN = ("help", "print_shtab")
#: Beginning of an option that a file of a whole run gives where one of its parts is asked for.
WHOLE_RUN = re.compile(r"(model|data|trainer)\.")
#: Most options that are listed where none comes near.
LISTED = 20


def explain(
    message: str, options: Sequence[str], words: Sequence[str] = (), files: Sequence[str] = (), verb: str = ""
) -> str:
    """Return the one line that says what is wrong.

    Args:
        message: Error of jsonargparse.
        options: All options of the verb without dashes, such as ``trainer.max_epochs``.
        words: What the user typed.
        files: Configs that were read; a mistake that was not typed is looked for there.
        verb: With words of its own, such as ``dfl data scan``.
    """
    message = message.replace("Expected <class", "Expected a <class")  # jsonargparse, where the value itself is `a`
    key = ".".join(re.findall(r'[Pp]arser key "([\w.+]+)":', message))
    if hit := re.search(r"the following arguments are required: ([\w., ]+)", message):
        return _missing(key, hit[1], message, verb)
    if hit := re.search(r"[Oo]ption '([\w.+]+)' is not accepted(.*)", message):
        return _no_option(key, hit[1], message[: hit.start()], hit[2]) + _where(hit[1], words, files)
    if hit := re.search(r"(?:does not accept option '|unrecognized arguments: -*)([^\s='\"]+)", message):
        key, _, below = hit[1].partition(".")
        if WHOLE_RUN.match(below):
            return _whole_run(key)
        text = f"no option --{hit[1]}" + (f" of `{verb}`" if verb else "") + _near_option(hit[1], options)
        return text + _where(hit[1].rpartition(".")[2], words, files)
    if hit := re.search(r"(?:given class_path|Import of) '([\w.]+)'[^\n]*\n?[^\n]*No module named", message):
        return f"{key or 'config'}: no class {hit[1]!r} can be imported" + _where(hit[1], words, files)
    plain = re.search(r"Expected a (?:<class '(?:int|float|bool|str|dict)'>|typing\.Literal)", message)
    if (hit := re.search(r"(?:import path string: |Unexpected import path format: )([^\s,]+)", message)) and not plain:
        return _no_class(key, hit[1], message[: hit.start()]) + _where(hit[1], words, files)
    if value := re.search(r"(?:Given value: |Got value: )(?:NestedArg\(key='[^']*', val=)?(.*)", message):
        return _wrong_type(key, message, value[1].partition(". Got value:")[0].rstrip(")").strip("'"), words, files)
    last = " ".join(message.strip().splitlines()[-1].split())
    return last + _where(last.rpartition(": ")[2].rstrip("."), words, files)


def of_constructor(error: Exception) -> str | None:
    """Return what a class raised that could not be built, behind jsonargparse's tree; None if that is no such tree."""
    built = re.findall(r"class_path[ =]'([\w.]+)'", str(error))
    cause = next((one for one in chain(error) if "class_path" not in str(one)), None)
    if not built or cause is None:
        return None
    return f"{built[0].rpartition('.')[2]}: {missing_package(str(cause)) or first_line(cause)}"


def of_trainer(error: Exception) -> str:
    """Return in one line why there is no trainer with these settings.

    Raises:
        Exception: The error itself, if it is nothing that settings can mend.
    """
    text = str(error)
    if isinstance(error, RuntimeError):
        if "more than one stateful callback" not in text:
            raise error
        return f"trainer.callbacks: {text.partition('.')[0]}; keep one"
    return missing_package(text) or text


#: Numbers that would be divided by, or are no seed: what each must be.
NUMBERS: dict[str, tuple[Callable[[float], bool], str]] = {
    "seed_everything": (lambda seed: 0 <= seed < 1 << 32, f"between 0 and {(1 << 32) - 1}"),
    "trainer.accumulate_grad_batches": (lambda batches: batches >= 1, "at least 1"),
    "trainer.check_val_every_n_epoch": (lambda epochs: epochs >= 1, "at least 1, or null"),
    "trainer.val_check_interval": (lambda batches: batches > 0, "more than 0: batches, or a share of an epoch"),
}


def of_numbers(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the numbers of a run, by the names of its options; None if nothing is."""
    for name, (fits, what) in NUMBERS.items():
        value = values.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and not fits(value):
            return f"{name} is {value}: it must be {what}"
    return None


def missing_package(message: str) -> str | None:
    """Return how to get the package that is asked for; None if none is."""
    if hit := re.search(r"Requirement '([^']+)' not met", message):
        return f"the package {hit[1]} is not installed: pip install '{hit[1]}', or leave out what needs it"
    if hit := re.search(r"No module named '([\w.]+)'", message):
        return f"the package {hit[1].partition('.')[0]} is not installed, or leave out what needs it"
    return None


def options(parser: Any, *classes: tuple[str, type]) -> list[str]:
    """Return the names of a verb's options without dashes, and those of the subclasses of the classes of some of them.

    Args:
        parser: Of the verb.
        *classes: An option and the class of its value, such as ``("model", Detector)``.
    """
    names = {flag[2:] for action in parser._actions for flag in action.option_strings if flag.startswith("--")}
    for key, base in classes:
        names |= {f"{key}.{option}" for cls in (base, *subclasses(base)) for option in _parameters(cls)}
    return sorted(name for name in names if name.rpartition(".")[2].isidentifier() and not name.endswith(HIDDEN))


def _missing(key: str, names: str, message: str, verb: str) -> str:
    missing = [name.strip() for name in names.split(",")]
    if key:
        classes = re.findall(r"class_path='([\w.]+)', init_args=Namespace\(" + re.escape(missing[0]) + "=", message)
        return f"{key} needs {', '.join(missing)}" + (f" ({classes[0].rpartition('.')[2]})" if classes else "")
    if verb:
        return f"`{verb}` needs {', '.join(missing)}; see {verb} --help"
    verb = missing[0].partition(".")[0]
    needs = " and ".join(f"--{name.partition('.')[2] or name}" for name in missing)
    trained = "--ckpt_path best to take a trained run, or " if verb in ("validate", "test") else ""
    return f"{verb} lacks {needs}; give {trained}--config NAME.yaml (dfl list shows what there is)"


def _no_option(key: str, option: str, before: str, rest: str) -> str:
    """Name the class that does not take an option: that of the value on the same line, else the last one before it."""
    if WHOLE_RUN.match(option):
        return _whole_run(key)
    named = re.findall(r"class_path='([\w.]+)'", rest)[:1] or re.findall(r"class_path '([\w.]+)'", before)[-1:]
    cls = pydoc.locate(named[0]) if named else None
    if not isinstance(cls, type):
        return f"{key} has no option {option!r}"
    return f"{key} ({cls.__name__}) has no option {option!r}" + near(option, _parameters(cls))


def _whole_run(key: str) -> str:
    return f"--{key} takes a file of what stands below `{key}:`, and this is one of a whole run; --config takes that"


def _no_class(key: str, name: str, before: str) -> str:
    """Name the classes that come near: subclasses of the types that were tried last."""
    kind = key.rpartition(".")[2]
    tried = re.findall(r"[\w.]+\.[A-Z]\w+", (re.findall(r"Subtypes: (.*)", before) or [""])[-1])
    bases = [pydoc.locate(word) for word in ([CALLABLES[kind]] if kind in CALLABLES else tried)]
    classes = {c for base in bases if isinstance(base, type) for c in (base, *subclasses(base))}
    names = sorted({c.__name__ for c in classes if not inspect.isabstract(c) and not c.__name__.startswith("_")})
    if kind not in CALLABLES and tried:
        kind = tried[0].rpartition(".")[2].lower()
    return f"{key}: no {kind} named {name!r}" + near(name, names)


def _wrong_type(key: str, message: str, value: str, words: Sequence[str], files: Sequence[str]) -> str:
    literals = re.findall(r"'([^']+)'", " ".join(re.findall(r"Expected a typing\.Literal(\[.*?\])", message)))
    types = [name.rpartition(".")[2] for name in re.findall(r"Expected an? <class '([\w.]+)'>", message)]
    types = [name.replace("Iterable", "list") for name in types if name not in ("NoneType", "Tensor")]
    close = near(value, literals) if literals and get_close_matches(value, literals, n=1) else ""
    takes = ", ".join(dict.fromkeys(types + literals)) or "a class, written as class_path and init_args"
    written = f"; a list is written [{value}]" if "list" in types and re.fullmatch(r"[\w./-]+", value) else ""
    return f"{key} takes {takes}, not {value!r}{close}{written}" + _where(value, words, files)


def _parameters(cls: type) -> list[str]:
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


def _near_option(flag: str, options: Sequence[str]) -> str:
    """Return the option that comes near: by its whole name, by its first part, or a bare name by its last part."""
    head, _, tail = flag.partition(".")
    close = get_close_matches(flag, options, n=1)
    if not close and not tail:
        close = [one for one in options if one.rpartition(".")[2] == flag]
    elif not close:
        close = [f"{one}.{tail}" for one in get_close_matches(head, [o for o in options if "." not in o], n=1)]
    if close:
        return f"; did you mean --{close[0]}?"
    return f"; there are --{', --'.join(options)}" if 0 < len(options) <= LISTED else ""


def _where(word: str, words: Sequence[str], files: Sequence[str]) -> str:
    """Return the file and line that hold a word which was not typed; empty if it was typed or is nowhere."""
    if not word or any(word in typed for typed in words):
        return ""
    for name in files:
        for number, line in enumerate(Path(name).read_text(encoding="utf-8").splitlines(), 1):
            if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", line.partition("#")[0]):
                return f" (line {number} of {name})"
    return ""
