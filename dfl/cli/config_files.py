"""What the configs of a command say: each with what it includes, its files by whole path, over those before it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dfl.cli import configs
from dfl.cli.configs import mapping
from dfl.errors import UserError, near

#: Keys that the top level of a config may hold, next to the arguments of the trainer's method.
KEYS = [
    *("model", "data", "trainer", "checkpoint", "last", "seed_everything"),
    *("name", "root", "overwrite", "ckpt_path", "init_from", "output", "maps", "map_format", "verbose", "include"),
]
#: Arguments of the data module that say which images there are.
SOURCES = {"train", "val", "test", "predict"}
Contents = dict[str, dict[str, Any]]


def read(names: list[str]) -> tuple[list[dict[str, Any]], set[str]]:
    """Return what configs hold, in their order, and the names of those that the parser cannot read as they are.

    Raises:
        UserError: If one is no config, or names a file that is not there.
    """
    seen: Contents = {}
    mended: set[str] = set()
    layers = [_with_includes(name, seen, mended) for name in names]
    _find_inner(names, layers, mended)
    return layers, mended


def leave_sources_out(names: list[str], layers: list[dict[str, Any]], mended: set[str], given: str | None) -> None:
    """Take the sources out of the configs if a data config is typed: it names all images of the run.

    The parser would merge them: a source of the config leaves its ``root`` to the one that takes its place, which then
    reads another folder than its own.
    """
    if given is None or not given.endswith(".yaml") or not SOURCES & init_args_of(given).keys():
        return
    for name, layer in zip(names, layers, strict=True):
        held = layer.get("data")
        if isinstance(held, str) and held.endswith(".yaml"):
            held = configs.read(held)
        arguments = mapping(mapping(held).get("init_args"))
        if SOURCES & arguments.keys():
            kept = {key: value for key, value in arguments.items() if key not in SOURCES}
            layer["data"] = mapping(held) | {"init_args": kept}
            mended.add(name)


def _read_yaml(name: str) -> dict[str, Any]:
    """Return what a config holds, or say in which line it is wrong."""
    content = configs.read(name)
    if not isinstance(content, dict):
        raise UserError(f"{name} is no config: it must hold keys such as model, data and trainer")
    if "class_path" in content:
        raise UserError(f"{name} describes one class, not a run; give it to the option it is for: --data {name}")
    for key in content:
        if key not in KEYS:
            raise UserError(f"{name} has an unknown key {str(key)!r}" + near(str(key), KEYS))
    return content


def _with_includes(name: str, seen: Contents, mended: set[str], outer: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what a config holds, put over what it includes: one file or several, each beating those before it."""
    if name in outer:
        raise UserError(f"{name} includes itself, by way of {' and '.join(outer)}")
    if len(outer) > configs.DEEPEST:
        raise UserError(f"{outer[0]} includes more than {configs.DEEPEST} configs, each of which includes the next")
    if name in seen:
        return seen[name]
    content = seen[name] = _read_yaml(name)
    if "include" not in content:
        return content
    mended.add(name)
    included = content.pop("include")
    files = [included] if isinstance(included, str) else included
    if not isinstance(files, list) or not all(isinstance(other, str) for other in files):
        raise UserError(f"{name}: include names a config, or a list of configs, not {included!r}")
    whole: dict[str, Any] = {}
    for other in files:
        beside = Path(name).parent / other
        file = str(beside) if beside.is_file() else configs.find(other)
        whole = _over(whole, _with_includes(file, seen, mended, (*outer, name)))
    seen[name] = _over(whole, content)
    return seen[name]


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return two mappings as one; mappings inside are merged too, anything else is replaced.

    A class replaces another one with its arguments.
    """
    other = "class_path" in above and "class_path" in below and above["class_path"] != below["class_path"]
    whole = {} if other else dict(below)
    for key, value in above.items():
        old = whole.get(key)
        whole[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return whole


def _find_inner(names: list[str], layers: list[dict[str, Any]], mended: set[str]) -> None:
    """Give the files that configs name (``data: data/x.yaml``) by whole path: beside the config, else packaged."""
    for name, layer in zip(names, layers, strict=True):
        for key, value in layer.items():
            if isinstance(value, str) and value.endswith(".yaml"):
                beside = Path(name).parent / value
                layer[key] = str(beside.absolute()) if beside.is_file() else configs.find(value)
                if not beside.is_file():
                    mended.add(name)


def keys_in(value: Any) -> set[str]:
    """Return the keys of nested mappings and lists."""
    if isinstance(value, list):
        return set().union(*map(keys_in, value))
    return {*value, *set().union(*map(keys_in, value.values()))} if isinstance(value, dict) else set()


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings in nested mappings by dotted name, without class paths, which are written in several ways."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "class_path":
                yield from leaves(inner, name if key == "init_args" else f"{name}.{key}".lstrip("."))
    else:
        yield name, list(value) if isinstance(value, tuple) else value


def init_args_of(file: str) -> dict[str, Any]:
    """Return the ``init_args`` of a YAML file."""
    return mapping(mapping(configs.read(file)).get("init_args"))
