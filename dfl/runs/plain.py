"""Values of a foreign file, checked against the types of a signature.

A checkpoint may bring numbers, booleans, words and short lists of them: what a network is built from. It brings no
class, no file, no address. So a value is taken if it fits the annotation of its parameter and stays within bounds, and
there is no list of forbidden things.
"""

import inspect
import math
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dfl.errors import UserError

#: What a free word may look like: a model of timm, a layer, a pattern of names. No separators of folders, no addresses.
WORD = re.compile(r"[\w*][\w.*+-]{0,99}", re.ASCII)
#: Largest number, longest list and longest sentence that a file may give.
LARGEST, LONGEST, SENTENCE = 1_000_000, 4_096, 2_000
#: What costs time or memory before any weight is looked at: (least, most).
BOUNDS = {
    **dict.fromkeys(("depth", "depths", "layers", "num_hidden_layers"), (1, 200)),
    **dict.fromkeys(("input_size", "view_size", "image_size", "img_size"), (1, 2_048)),
    **dict.fromkeys(("blocks_per_stage", "num_multimask_outputs", "methods"), (0, 1_000)),
    **dict.fromkeys(("dim", "hidden", "rank"), (1, 65_536)),
    "longest_answer": (1, 8_192),
    "std": (1e-4, 1e4),
    **dict.fromkeys(("reals", "fakes"), (1, 2**40)),  # images of a validation
}
#: The same of any number whose name holds this: less than all of it is dropped.
DROP = ("drop", (0.0, 0.999))
#: Lists whose sum costs what one number does: no more blocks in all stages than in one.
SUMS = ("depths", "layers")


class Misfit(ValueError):
    """A value that does not fit; the message is the end of a sentence: ``is 'x', and it must be an integer``."""


class Sentences:
    """Stands for a list of sentences, any printable text, in a table of kinds."""


def arguments(function: Any, values: Any, kinds: Mapping[str, Any], left_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the arguments of a call that a file gives, each fit for its parameter.

    Args:
        function: A class or function with annotated parameters.
        values: What the file holds; must be a mapping.
        kinds: Kinds by parameter that stand in place of the annotation: a table of the keys of a dictionary, for
            example. A dictionary without such a table is refused.
        left_out: Parameters that a file cannot give.

    Raises:
        Misfit: For what is no parameter, and for a value that does not fit.
    """
    if not isinstance(values, Mapping):
        raise Misfit(f"are a {type(values).__name__}, and must be a mapping")
    taken = parameters(function)
    fitting = {}
    for name, value in values.items():
        if name in left_out:
            continue
        if not isinstance(name, str) or name not in taken:
            raise Misfit(f"name {shown(name)}, which {function.__name__} does not take")
        try:
            fitting[name] = fit(value, kinds.get(name, taken[name]), name)
        except Misfit as error:
            raise Misfit(f"say that {name} {error}") from None
    return fitting


def parameters(function: Any) -> dict[str, Any]:
    """Return the annotations of all parameters by name, of a class those that its ``**kwargs`` hand to its parents."""
    of_class = [vars(c)["__init__"] for c in getattr(function, "__mro__", ()) if "__init__" in vars(c)]
    annotated: dict[str, Any] = {}
    for step in of_class or [function]:
        own, annotations = inspect.signature(step).parameters.values(), get_type_hints(step)
        named = [p.name for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]
        annotated = {name: annotations.get(name, Any) for name in named} | annotated
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    return annotated


def fit(value: Any, kind: Any, name: str = "") -> Any:
    """Return a value if it is of a kind.

    Args:
        value: Of a file.
        kind: An annotation of plain types, `Sentences`, or a table of the keys that a mapping may have.
        name: What it is the value of, which bounds some numbers.

    Raises:
        Misfit: If it is not.
    """
    if isinstance(kind, Mapping):
        return _table(value, kind)
    if hasattr(kind, "from_file"):  # a part, such as a criterion, which has a table of its own
        return kind.from_file(value)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _first(value, inner, name)
    if origin is Literal:
        if type(value) in (str, int, bool, NoneType) and value in inner:
            return value
        raise Misfit(f"is {shown(value)}, and it must be one of {', '.join(map(str, inner))}")
    if kind is NoneType:
        if value is None:
            return None
        raise Misfit(f"is {shown(value)}, and it must be nothing")
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise Misfit(f"is {shown(value)}, and it must be true or false")
    if kind in (int, float):
        return _number(value, kind, name)
    if kind is str:
        if isinstance(value, str) and WORD.fullmatch(value):
            return value
        raise Misfit(f"is {shown(value)}, and it must be a plain word")
    if kind is Sentences:
        return None if value is None else _list(value, _sentence)
    if origin in (tuple, list):
        fixed, of_item = origin is tuple and inner and inner[-1] is not Ellipsis, inner[0] if inner else Any
        items = _list(value, lambda item: fit(item, of_item, name), len(inner) if fixed else None)
        if name in SUMS and sum(items) > BOUNDS[name][1]:
            raise Misfit(f"holds {sum(items):,} in all, and it must hold no more than {BOUNDS[name][1]}")
        return items
    raise Misfit(f"is {shown(value)}, which a file cannot give")


def untrusted(path: object, why: str) -> UserError:
    """Return the error for a file that says what an honest one would not."""
    return UserError(f"{path} is damaged or not to be trusted: {why}")


def shown(value: Any) -> str:
    """Return a value as it may stand in a message: short, and printable whatever it is."""
    if isinstance(value, str | int | float | bool | NoneType):
        text = ascii(value)
        return text if len(text) <= 60 else text[:57] + "..."
    return f"a {type(value).__name__}"


def _first(value: Any, kinds: tuple[Any, ...], name: str) -> Any:
    """Return the value as the first kind that it fits; else the complaint of the last that is not ``None``."""
    misfit = Misfit(f"is {shown(value)}, which a file cannot give")
    for kind in kinds:
        try:
            return fit(value, kind, name)
        except Misfit as error:
            misfit = error if kind is not NoneType else misfit
    raise misfit


def _number(value: Any, kind: type, name: str) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    least, most = BOUNDS.get(name, DROP[1] if DROP[0] in name else (-LARGEST, LARGEST))
    if kind is int and not whole:
        raise Misfit(f"is {shown(value)}, and it must be an integer")
    if not whole and not (isinstance(value, float) and math.isfinite(value)):
        raise Misfit(f"is {shown(value)}, and it must be a number")
    if not least <= value <= most:
        raise Misfit(f"is {shown(value)}, and it must lie between {least:,} and {most:,}")
    return value


def _sentence(text: Any) -> str:
    if isinstance(text, str) and len(text) <= SENTENCE and text.isprintable():
        return text
    raise Misfit(f"holds {shown(text)}, and it must hold sentences of at most {SENTENCE:,} printable characters")


def _list(value: Any, check: Any, length: int | None = None) -> list[Any]:
    if not isinstance(value, list | tuple) or len(value) > LONGEST or (length is not None and len(value) != length):
        wanted = f"a list of {length}" if length is not None else f"a list of at most {LONGEST:,}"
        raise Misfit(f"is {shown(value)}, and it must be {wanted}")
    return [check(item) for item in value]


def _table(value: Any, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping whose keys are all allowed; ``None`` stays, for a part that is left out."""
    if value is None:
        return value  # type: ignore[return-value]
    if not isinstance(value, Mapping):
        raise Misfit(f"is {shown(value)}, and it must be a mapping")
    checked = {}
    for key, inner in value.items():
        if not isinstance(key, str) or key not in kinds:
            raise Misfit(f"has the key {shown(key)}, which a file cannot give (allowed: {', '.join(sorted(kinds))})")
        try:
            checked[key] = fit(inner, kinds[key], key)
        except Misfit as error:
            raise Misfit(f"has a {key} that {error}") from None
    return checked
