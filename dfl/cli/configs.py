"""Configs: found by bare name from any directory, read as plain values, laid over each other, and listed.

Nothing here imports torch: detectors are listed by reading their source text, never by importing it.
"""

import ast
import functools
import json
import re
import textwrap
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from dfl.errors import UserError, near, refused

_HERE = Path(__file__).parents[1]
#: Where configs live: the source checkout first, then the copy that ships inside the wheel.
ROOTS = [
    root
    for root, mark in ((_HERE.parent / "configs", _HERE.parent / "pyproject.toml"), (_HERE / "configs", _HERE))
    if root.is_dir() and mark.exists()
]
#: Keys that the top level of a config may hold, next to the arguments of the trainer's method.
KEYS = [
    *("model", "data", "trainer", "checkpoint", "last", "seed_everything"),
    *("name", "root", "overwrite", "ckpt_path", "init_from", "output", "maps", "map_format", "verbose", "include"),
]
#: Arguments of the data module that say which images there are.
SOURCES = {"train", "val", "test", "predict"}
#: What methods are grouped by.
IDEAS = (
    *("image classifiers", "frequency", "foundation models", "localization", "disentanglement and fairness"),
    *("vision-language models", "others"),
)
#: How deep a config may be nested, and how many values it may hold.
DEEPEST, MOST = 40, 200_000


class Method(NamedTuple):
    """A detector, or a network that is a backbone of ``Classifier``."""

    name: str
    what: str
    idea: str = "others"
    paper: str = ""
    year: int | None = None
    is_backbone: bool = False


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
    names = listing()
    # vit_slc.yaml, data/vit_scl.yaml: what is meant may differ by a letter or by the folder
    same_stem = [one for one in names if Path(one).stem == path.stem]
    hint = f"; did you mean {same_stem[0]!r}?" if same_stem else near(f"{name.removesuffix('.yaml')}.yaml", names)
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
        content = yaml.load(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        at = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{name}{at} is no YAML: {error.problem or error}") from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:  # such as the 31st of February
        raise UserError(f"{name} is no YAML text: {error}") from error
    except RecursionError as error:
        raise UserError(f"{name} is nested too deeply to be a config") from error
    _count(content, [MOST], 0, name)
    return content


@functools.cache
def _loader() -> Any:
    """Return the loader of plain values, for which 1e-3 is a number as for the parser, and a key stands once."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            """Return the node of a mapping; of a key that stands twice YAML does not say which one holds."""
            node = super().compose_mapping_node(anchor)
            seen: dict[tuple[str, str], int] = {}
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and (name := (key.tag, key.value)) in seen:
                    problem = f"the key {key.value!r} is also in line {seen[name]}: take one away"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen[str(key.tag), str(key.value)] = key.start_mark.line + 1
            return node

    number = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader


def text(content: Any) -> str:
    """Return plain values as YAML of one line, as the option ``--config`` takes them."""
    import yaml

    return str(
        yaml.safe_dump(content, default_flow_style=True, sort_keys=False, allow_unicode=True, width=MOST**2)
    ).strip()


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
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    for one in inner if isinstance(inner, (list, set, tuple)) else ():
        _count(one, left, depth + 1, name)


def listing() -> list[str]:
    """Return the names of all packaged configs, such as ``vit_scl.yaml`` and ``data/toy.yaml``; runs first."""
    names = {path.relative_to(root).as_posix() for root in ROOTS for path in root.rglob("*.yaml")}
    return sorted(names, key=lambda name: (name.rpartition("/")[0], name))


def describe(name: str) -> str:
    """Return the first sentence of the comment that a packaged config begins with, in short; '' where it has none."""
    with open(find(name), encoding="utf-8") as lines:
        words = " ".join(line.strip("# \n") for line in takewhile(lambda line: line.startswith("#"), lines)).strip()
    return textwrap.shorten(re.split(r"(?<=\.) +(?=[A-Z])", words, maxsplit=1)[0], 150, placeholder=" ...")


def parameters() -> dict[str, str]:
    """Return the parameters of configs and methods by name, in short; ``tests/keep_configs.py`` counts them."""
    file = next(root / "parameters.json" for root in ROOTS)
    table: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return table


def methods() -> Iterator[Method]:
    """Yield the public detectors, in the order of ``dfl.detectors``, then the networks of papers that are backbones."""
    package = _HERE / "detectors"
    for node in _tree(package / "__init__.py").body:
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dfl.detectors.")):
            continue
        module = package.joinpath(*str(node.module).split(".")[2:])
        files = sorted(module.glob("*.py")) if module.is_dir() else [module.with_suffix(".py")]
        classes = {n.name: n for file in files for n in _tree(file).body if isinstance(n, ast.ClassDef)}
        for alias in node.names:
            if alias.name in classes and alias.name != "Detector":
                yield Method(alias.name, _what(classes[alias.name]), *_about(classes[alias.name].body))
    for file in sorted((_HERE / "networks" / "zoo").glob("*.py")):
        body = _tree(file).body
        for one in body:
            if isinstance(one, ast.FunctionDef) and any(ast.unparse(d) == "register_model" for d in one.decorator_list):
                yield Method(one.name, _what(one), *_about(body))._replace(is_backbone=True)


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _what(node: ast.ClassDef | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]


def _about(body: list[ast.stmt]) -> list[Any]:
    """Return idea, paper and year of ``about = About(...)`` in a class or module; nothing where there is none."""
    for node in body:
        match node:
            case ast.Assign(targets=[ast.Name(id="about")], value=ast.Call(args=arguments)):
                return [ast.literal_eval(argument) for argument in arguments]
    return []


# what the configs of a command say together


def layers(names: list[str], data: str | None = None) -> list[dict[str, Any]]:
    """Return what configs hold, each over what it includes, in their order; files that they name by absolute path.

    Args:
        names: Paths of configs.
        data: Config of the data that is typed. Where it names the sources, those of the configs are left out: the
            parser would merge them, and a source would keep the ``root`` of the one that it replaces.

    Raises:
        UserError: If one is no config, or names a file that does not exist.
    """
    seen: dict[str, dict[str, Any]] = {}
    contents = [_with_includes(name, seen) for name in names]
    for name, content in zip(names, contents, strict=True):
        for key, value in content.items():
            if isinstance(value, str) and value.endswith(".yaml"):
                content[key] = _beside(name, value)
    if data is not None and data.endswith(".yaml") and SOURCES & init_args_of(data).keys():
        for content in contents:
            own = content.get("data")
            own = mapping(read(own) if isinstance(own, str) and own.endswith(".yaml") else own)
            arguments = mapping(own.get("init_args"))
            if SOURCES & arguments.keys():
                content["data"] = own | {"init_args": {k: v for k, v in arguments.items() if k not in SOURCES}}
    return contents


def _beside(name: str, file: str) -> str:
    """Return the path of a file that a config names: beside the config, else one that is looked up."""
    path = Path(name).parent / file
    return str(path.absolute()) if path.is_file() else find(file)


def _with_includes(name: str, seen: dict[str, dict[str, Any]], outer: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what a config holds, put over what it includes: one file or several, each beating those before it."""
    if name in outer:
        raise UserError(f"{name} includes itself, by way of {' and '.join(outer)}")
    if len(outer) > DEEPEST:
        raise UserError(f"{outer[0]} includes more than {DEEPEST} configs, each of which includes the next")
    if name in seen:
        return seen[name]
    content = seen[name] = _run_config(name)
    if "include" not in content:
        return content
    included = content.pop("include")
    files = [included] if isinstance(included, str) else included
    if not isinstance(files, list) or not all(isinstance(other, str) for other in files):
        raise UserError(f"{name}: include names a config, or a list of configs, not {included!r}")
    whole: dict[str, Any] = {}
    for other in files:
        whole = _over(whole, _with_includes(_beside(name, other), seen, (*outer, name)))
    seen[name] = _over(whole, content)
    return seen[name]


def _run_config(name: str) -> dict[str, Any]:
    """Return what the config of a run holds, or say what is wrong with its top level."""
    content = read(name)
    if not isinstance(content, dict):
        raise UserError(f"{name} is no config: it must hold keys such as model, data and trainer")
    if "class_path" in content:
        raise UserError(f"{name} describes one class, not a run; give it to the option it is for: --data {name}")
    for key in content:
        if key not in KEYS:
            raise UserError(f"{name} has an unknown key {str(key)!r}" + near(str(key), KEYS))
    return content


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return two mappings as one; inner mappings are merged, anything else is replaced, a class with its arguments."""
    other = "class_path" in above and "class_path" in below and above["class_path"] != below["class_path"]
    whole = {} if other else dict(below)
    for key, value in above.items():
        old = whole.get(key)
        whole[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return whole


def init_args_of(file: str) -> dict[str, Any]:
    """Return the ``init_args`` of a YAML file."""
    return mapping(mapping(read(file)).get("init_args"))


def class_of(value: Any) -> str:
    """Return the short class name in the value of ``model`` or ``data``."""
    return class_path_of(value).rpartition(".")[2]


def class_path_of(value: Any) -> str:
    """Return the class in the value of ``model`` or ``data``: a name, a path, a mapping or a YAML file."""
    if isinstance(value, str) and value.endswith(".yaml"):
        value = read(value)
    elif isinstance(value, str) and value.startswith("{"):
        value = plain(value, "what is typed")
    return str((value.get("class_path") if isinstance(value, dict) else value) or "")
