"""What was measured of a run, for its card: from files that ``dfl test`` or ``dfl benchmark`` wrote."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from dfl.cli.checkpoints import Trained
from dfl.errors import UserError, near
from dfl.metrics.verdicts import percent


class Told(TypedDict, total=False):
    """What only the user knows.

    Args:
        results: ``results.json`` of a test or ``benchmark.json`` of a benchmark; by default that of the run's newest
            test.
        method: Of the benchmark; not needed where it has one.
        license: Of the weights, a short form of the hub such as ``cc-by-nc-4.0``.
        data_license: Of the images that it was trained on.
    """

    results: str | None
    method: str | None
    license: str | None
    data_license: str | None


@dataclass
class Numbers:
    """What was measured, as rows of texts.

    Attributes:
        source: What the numbers are from.
        domains: Domain, real, fake, AUROC, its interval.
        robustness: Degradation, AUROC, its interval, AUROC without it.
        groups: Domain, attribute, group, real, called fake, fake, called real.
    """

    source: str = ""
    domains: list[Sequence[Any]] = field(default_factory=list)
    robustness: list[Sequence[Any]] = field(default_factory=list)
    groups: list[Sequence[Any]] = field(default_factory=list)


def numbers_of(trained: Trained, root: Path, told: Told) -> Numbers:
    """Return what was measured.

    Raises:
        UserError: See `write_card`.
    """
    given = told.get("results")
    file = Path(given).expanduser() if given else _newest_test(trained, root)
    if file is None:
        return Numbers()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"--results: no file {file.absolute()}") from error
    except ValueError as error:
        raise UserError(f"--results: {file} is no JSON: {error}") from error
    if isinstance(content, dict) and "cells" in content:
        return _of_benchmark(content, file, told.get("method"))
    if isinstance(content, dict) and "results" in content:
        return _of_test(content, trained)
    raise UserError(f"--results: {file} is neither results.json of dfl test nor benchmark.json of dfl benchmark")


def _newest_test(trained: Trained, root: Path) -> Path | None:
    """Return the newest results of a test of this very checkpoint; those of other versions of a run are not its own."""
    logs = root / "lightning_logs" / trained.path.resolve().parent.name
    files = sorted(logs.glob("version_*/results.json"), key=lambda one: one.stat().st_mtime, reverse=True)
    for file in files if trained.in_run else ():
        tested = json.loads(file.read_text(encoding="utf-8"))["run"]["checkpoint"]
        newer = file.stat().st_mtime >= trained.path.stat().st_mtime
        if tested and newer and Path(tested).resolve() == trained.path.resolve():
            return file
    return None


def _of_test(content: Mapping[str, Any], trained: Trained) -> Numbers:
    found = Numbers(f"`dfl test`, {content['run']['date']}, {content['run']['device']}")
    for domain, row in content["results"].items():
        if row.get("n_real") is not None:
            ends = content.get("intervals", {}).get(domain, [None, None])
            found.domains.append((domain, row["n_real"], row["n_fake"], *_with_interval(row.get("auroc"), *ends)))
    for domain, attributes in content.get("groups", {}).items():
        for attribute, table in attributes.items():
            for group, one in table["rates"].items():
                missed = None if one.get("tpr_val") is None else 1 - one["tpr_val"]
                rates = (one["real"], _share(one.get("fpr_val")), one["fake"], _share(missed))
                found.groups.append((domain, attribute, group, *rates))
    return found


def _of_benchmark(content: Mapping[str, Any], file: Path, method: str | None) -> Numbers:
    names = [one["name"] for one in content["methods"]]
    if method is None and len(names) != 1:
        raise UserError(f"--results: {file} has {len(names)} methods: say which with --method{near('', names)}")
    if method is not None and method not in names:
        raise UserError(f"--method {method!r} is not in {file}{near(method, names)}")
    own = method or names[0]
    counts = {one["name"]: (one["real"], one["fake"]) for one in content["domains"]}
    found = Numbers(f"`dfl benchmark`, {content['name']}, method {own}")
    for cell in content["cells"]:
        is_mean = cell.get("role") == "mean"  # over domains that are there themselves
        if (cell["method"], cell["metric"], cell["variant"]) == (own, "auroc", "stored") and not is_mean:
            values = _with_interval(cell["value"], cell.get("low"), cell.get("high"))
            found.domains.append((cell["domain"], *counts.get(cell["domain"], ("", "")), *values))
    for row in content["robustness"]:
        if row["method"] == own:
            values = _with_interval(row["value"], row.get("low"), row.get("high"))
            found.robustness.append((f"{row['family']} {row['strength']}", *values, _number(row["stored"])))
    return found


def _with_interval(value: Any, low: Any, high: Any) -> tuple[str, str]:
    return _number(value), "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _number(value: Any) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _share(value: Any) -> str:
    return "undefined" if value is None else percent(value)
