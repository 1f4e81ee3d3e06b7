"""Configs by bare name, from any directory, and the lists that `dfl list` shows.

Everything here answers without importing torch: detectors are found by reading their source text, never by
importing it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dfl.errors import UserError, near, refused

_HERE = Path(__file__).parents[1]
#: Where configs live: the source checkout first, then the copy that ships inside the wheel.
ROOTS = [
    root
    for root, mark in ((_HERE.parent / "configs", _HERE.parent / "pyproject.toml"), (_HERE / "configs", _HERE))
    if root.is_dir() and mark.exists()
]
#: How deep a config may be nested, and how many values it may hold.
DEEPEST, MOST = 40, 200_000


def find(name: str) -> str:
    """Return the path of a config.

    Args:
        name: A path, or a bare name such as ``vit_scl``, ``vit_scl.yaml`` or ``data/toy.yaml`` that is looked
            up in the packaged configs when no such file is in the working directory.

    Raises:
        UserError: If there is no such config; says where it looked and what comes near.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return str(path)
    for root in ROOTS if not path.is_absolute() else ():
        for candidate in (root / path, root / f"{path}.yaml"):
            if candidate.is_file():
                return str(candidate)
    looked = " or in ".join(str(place) for place in (Path.cwd(), *ROOTS))
    known = listing()
    # vit_slc.yaml, data/vit_scl.yaml: what is meant may differ by a letter or by the folder
    same_stem = [k for k in known if Path(k).stem == path.stem]
    hint = f"; did you mean {same_stem[0]!r}?" if same_stem else near(f"{name.removesuffix('.yaml')}.yaml", known)
    raise UserError(f"no config {name!r} in {looked}{hint}")


def read(name: str) -> Any:
    """Return what a YAML file holds, as plain values.

    Raises:
        UserError: If it cannot be read, is no YAML, or says more than a config can: see `plain`.
    """
    try:
        if not Path(name).is_file():  # a pipe would be waited for
            raise UserError(f"{name} is no file that can be read as YAML")
        text = Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise refused(error, name, "read") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is no YAML text: {error}") from error
    return plain(text, name)


def plain(text: str, name: str) -> Any:
    """Return what a YAML text holds, as plain values.

    Args:
        text: Is parsed without tags that make objects.
        name: Of the file or the option, for errors.

    Raises:
        UserError: If it is no YAML, with the line; if it is nested more than ``DEEPEST`` deep, holds itself, or holds
            more than ``MOST`` values once its references are followed.
    """
    import yaml

    depth = 0
    for letter in text:  # the parser's time grows with the square of the depth
        depth += (letter in "[{") - (letter in "]}")
        if depth > 10 * DEEPEST:
            raise UserError(f"{name} is nested too deeply to be a config")
    try:
        found = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        at = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{name}{at} is no YAML: {error.problem or error}") from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:  # such as the 31st of February
        raise UserError(f"{name} is no YAML text: {error}") from error
    except RecursionError as error:
        raise UserError(f"{name} is nested too deeply to be a config") from error
    left = [MOST]
    _count(found, left, 0, name)
    return found


def mapping(value: Any) -> dict[str, Any]:
    """Return a value that is a mapping; an empty one for any other, of which the parser says what is wrong."""
    return value if isinstance(value, dict) else {}


def _count(value: Any, left: list[int], depth: int, name: str) -> None:
    """Take the values inside a value from what is left."""
    left[0] -= 1
    if isinstance(value, str) and any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"{name} holds {value!r}, which is no text")
    if depth > DEEPEST:
        raise UserError(f"{name} is nested more than {DEEPEST} deep, or holds itself: that is no config")
    if left[0] < 0:
        raise UserError(f"{name} holds more than {MOST:,} values: that is no config")
    if isinstance(value, (dict, list, set, tuple)):
        for inner in value:
            _count(inner, left, depth + 1, name)
    if isinstance(value, dict):
        for inner in value.values():
            _count(inner, left, depth + 1, name)


def listing() -> list[str]:
    """Return the names of all packaged configs, such as ``vit_scl.yaml`` and ``data/toy.yaml``; runs first."""
    names = {path.relative_to(root).as_posix() for root in ROOTS for path in root.rglob("*.yaml")}
    return sorted(names, key=lambda name: (name.rpartition("/")[0], name))


def describe(name: str) -> str:
    """Return the first comment line of a packaged config; empty where it has none."""
    with open(find(name), encoding="utf-8") as lines:
        return next((line.strip("# \n") for line in lines if line.startswith("#") and line.strip("# \n")), "")


def detectors() -> Iterator[tuple[str, str]]:
    """Yield the name and the first docstring line of each public detector, in the order of ``dfl.detectors``."""
    package = _HERE / "detectors"
    for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dfl.detectors.")):
            continue
        module = package.joinpath(*str(node.module).split(".")[2:])
        files = sorted(module.glob("*.py")) if module.is_dir() else [module.with_suffix(".py")]
        trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
        classes = {n.name: n for tree in trees for n in tree.body if isinstance(n, ast.ClassDef)}
        for alias in node.names:
            if alias.name in classes and alias.name != "Detector":
                yield alias.name, (ast.get_docstring(classes[alias.name]) or "").partition("\n")[0]
