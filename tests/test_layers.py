"""The direction of dependence: who may import whom, and no circles."""

import ast
import functools
from pathlib import Path

import dfl

ROOT = Path(dfl.__file__).parent
#: How pages and their figures are written.
PAGES = {"evaluation.html", "evaluation.plots"}
#: What each part may import from the rest of the package. ``errors``, ``hub`` and ``distributed`` are free to all.
MAY = {
    "__main__": {"cli", "cli.configs", "orphans"},
    "cli.configs": set(),
    "cli.checkpoints": {"cli.messages", "data", "detectors", "runs"},  # what a checkpoint says, and its run
    "cli.messages": set(),  # what the parser says, in one line
    "cli.verbs": {"cli.messages"},  # a function as a verb; those of data and the audit
    "errors": set(),
    "distributed": set(),
    "hub": set(),
    "orphans": set(),
    "terminal": set(),
    "runs": {"orphans"},  # what a run leaves behind; whether a process lives
    "losses": {"runs"},  # what a file may say of a criterion
    "features": {"runs"},  # how a file is written, the hash of weights
    "networks": {"runs"},  # how a file of weights is opened
    "metrics": set(),
    "data": {"runs", "terminal"},
    # configs by name, pages, encoders
    "tools": {*PAGES, "cli.configs", "cli.verbs", "data", "features", "networks", "runs", "terminal"},
    "training": {*PAGES, "metrics", "evaluation", "runs", "terminal"},
    "detectors": {"features", "networks", "losses", "metrics", "runs", "training"},
    "evaluation.html": {"evaluation.plots"},  # a page that stands alone
    "evaluation.plots": set(),  # figures of plain numbers
    "evaluation": {*PAGES, "metrics", "data", "runs", "terminal"},
    "benchmark": {
        *PAGES,
        *(
            "cli",
            "cli.checkpoints",
            "cli.configs",
            "cli.verbs",
            "data",
            "evaluation",
            "metrics",
            "runs",
            "orphans",
            "terminal",
            "tools",
            "training",
        ),
    },
    "sharing": {
        *PAGES,
        *("cli", "cli.checkpoints", "cli.configs", "cli.verbs", "data", "detectors", "evaluation", "metrics"),
        *("networks", "runs", "orphans"),
    },
    "fairness": {*PAGES, "cli", "cli.verbs", "evaluation", "metrics", "runs", "terminal"},
    "cli": {
        *("cli.checkpoints", "cli.configs", "cli.messages", "cli.verbs", "data", "detectors", "evaluation"),
        *("metrics", "networks", "runs", "sharing", "training"),
    },
}


def part_of(name: str) -> str:
    """Return the part of a module: its folder, or a file of it that has arrows of its own."""
    names = name.split(".")
    return ".".join(names[:2]) if ".".join(names[:2]) in MAY else names[0]


@functools.cache
def modules() -> dict[str, tuple[Path, set[str]]]:
    """Return the dfl modules that each file imports, at its top or within a function, by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tree = ast.parse(path.read_text())
        uses = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dfl":
                uses |= {f"{node.module}.{a.name}" for a in node.names}
            elif isinstance(node, ast.Import):
                uses |= {a.name for a in node.names if a.name.startswith("dfl.")}
        found[name] = (path, {u.removeprefix("dfl").lstrip(".") for u in uses})
    return found


def test_arrows_point_one_way() -> None:
    wrong = []
    for name, (path, uses) in modules().items():
        part = part_of(name)
        for use in uses:
            other = part_of(use)
            if part and other not in (part, "errors", "hub", "distributed", "__version__") and other not in MAY[part]:
                wrong.append(f"{path.relative_to(ROOT)} imports dfl.{use}")
    assert not wrong


def test_training_takes_only_figures_from_evaluation() -> None:
    uses = {u for n, (_, us) in modules().items() if n.startswith("training") for u in us if u.startswith("evaluation")}
    figures = {f"evaluation.{name}" for name in ("figures", "matrices", "plots", "examples")}
    assert {".".join(u.split(".")[:2]) for u in uses} <= figures


def test_detectors_do_not_reach_into_the_data_module() -> None:
    for path in (ROOT / "detectors").rglob("*.py"):
        assert "datamodule" not in path.read_text(), path


def test_losses_and_networks_know_no_lightning() -> None:
    for part in ("losses", "networks"):
        for path in (ROOT / part).rglob("*.py"):
            assert "lightning" not in path.read_text().lower(), path


def test_no_circles() -> None:
    files = {n: us for n, (_, us) in modules().items()}

    def targets(name: str) -> set[str]:
        found = {u if u in files else u.rpartition(".")[0] for u in files[name]}
        return {t for t in found if t in files and t != name}

    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"circle: {' -> '.join((*trail, name))}"
        if name not in done:
            # a package's __init__ collects its files; they do not import it back
            for t in targets(name):
                visit(t, (*trail, name))
            done.add(name)

    for name in files:
        visit(name, ())
