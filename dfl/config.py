"""Configs by bare name, from any directory, and the lists that `dfl list` shows.

Everything here answers without importing torch: detectors are found by reading their source text, never by
importing it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from dfl.errors import UserError, near

_HERE = Path(__file__).parent
#: Where configs live: the source checkout first, then the copy that ships inside the wheel.
ROOTS = [
    root
    for root, mark in ((_HERE.parent / "configs", _HERE.parent / "pyproject.toml"), (_HERE / "configs", _HERE))
    if root.is_dir() and mark.exists()
]


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
