"""A source as a config writes it, ``class_path`` and ``init_args``, made into the object."""

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, TypeVar

from jsonargparse import ArgumentParser

from dfl.data.sources.base import Source
from dfl.errors import UserError, behind, near, subclasses

T = TypeVar("T")
#: What the parser says before each type that it tried.
_TRIED = re.compile(r"Does not validate against any of the Union subtypes\s+Subtypes: .*\s+Errors:\s+- ")


def built(spec: Any, where: str) -> Source:
    """Return the source of ``{class_path: ..., init_args: ...}``; ``where`` (a domain, a file) begins every error.

    Raises:
        UserError: If it is written otherwise, names no source, or gives it arguments that it does not take.
    """
    if not isinstance(spec, Mapping) or "class_path" not in spec:
        raise UserError(f"{where}: a source is written as class_path and init_args, not {spec!r}")
    name = str(spec["class_path"])
    names = [source.__name__ for source in subclasses(Source)]  # type: ignore[type-abstract]
    if "." not in name and name not in names:
        raise UserError(f"{where}: no source {name!r}" + near(name, names))
    return built_as(Source, spec, f"{where}: {name}")  # type: ignore[type-abstract]


def built_as(base: type[T], spec: Mapping[str, Any], where: str) -> T:
    """Return the object of ``{class_path: ..., init_args: ...}``, of a class derived from ``base``.

    Raises:
        UserError: If the class is none of these, or does not take its arguments; begins with ``where``.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "it", required=True)
    try:  # of a copy: the parser writes its own objects into lists of sources
        made: T = parser.instantiate_classes(parser.parse_object({"it": deepcopy(dict(spec))})).it
    except UserError:
        raise
    except Exception as error:  # the parser wraps whatever it meets
        raise UserError(f"{where}: {behind(error, UserError) or _reason(str(error))}") from error
    return made


def _reason(message: str) -> str:
    """What is wrong, out of the parser's words on every type that it tried: source, or nothing."""
    reason = _TRIED.sub("", message).removeprefix('Parser key "it":').partition("- Expected a <class 'NoneType'>")[0]
    return " ".join(reason.partition("Problem with given class_path")[2].partition(":")[2].split() or reason.split())
