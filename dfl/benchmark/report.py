"""``dfl report``: tables and page of a benchmark from files of predictions alone, whoever made them.

    dfl report lightning_logs/toy/predictions                   of dfl benchmark
    dfl report predictions/ theirs.csv --output comparison      beside another detector's scores

Files of scores (.csv, .jsonl, .parquet) hold a score or a logit and a label for each image, and may hold path, domain,
video, group, generator, source, threshold and detector, as for ``dfl audit``. See docs/benchmark.md.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dfl.benchmark import changes, means, store, tensorboard
from dfl.benchmark import run as runs
from dfl.benchmark.content import Settings, build
from dfl.benchmark.entries import Entry, by_domain, of_others, of_store, own_first
from dfl.benchmark.lookup import Lookup
from dfl.benchmark.page import page
from dfl.benchmark.spec import STORED, Spec, safe
from dfl.benchmark.spectra import REAL, spectra
from dfl.benchmark.tables import save, tables
from dfl.benchmark.units import joined
from dfl.cli.verbs import call
from dfl.errors import UserError, near, visible
from dfl.evaluation.results import terminal_table
from dfl.runs import files
from dfl.terminal import console

WHAT = "Compare detectors from files of predictions: tables, intervals, tests, and a page."


def main(argv: list[str]) -> Any:
    """Run the verb, from the words after ``dfl report``; return what `report` returns.

    Raises:
        UserError: For whatever the user can mend.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print((__doc__ or "").strip() + "\n")
    first = ("predictions", "+", "Folders of predictions, and files of scores.")
    return call(report, argv or ["--help"], "dfl report", WHAT, first)


def report(
    predictions: list[str],
    output: str = "report",
    within: list[str] | None = None,
    label_of_fake: str | None = None,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare what files hold, print the tables, and write them and ``report.html``.

    Args:
        predictions: Folders of ``dfl benchmark``, and files of scores.
        output: Folder of the tables and the page.
        within: Domains of the training distribution; of files of ``dfl benchmark`` they are known.
        label_of_fake: The label that means fake, in files of scores where it is neither 1 nor a name such as fake.
        resamples: Of the intervals; by default as the benchmark of a folder had them, else 1000.
        seed: Of the resamples.

    Returns:
        The content of ``benchmark.json``.

    Raises:
        UserError: If a file is not there or makes no sense, or methods were measured on different images.
    """
    if resamples is not None and resamples < 100:
        raise UserError(f"--resamples {resamples}: an interval needs at least 100")
    entries: list[Entry] = []
    for name in predictions:
        path = Path(name).expanduser()
        if path.is_dir():
            there = sorted(path.glob("*.parquet"))
            if not there:
                raise UserError(f"no predictions (*.parquet) in {path}")
            entries += [of_store(file) for file in there]
        else:
            role = _role(within or ())
            entries += of_others(path, role=role, label_of_fake=label_of_fake)
    domains = [*dict.fromkeys(one.domain for one in entries if one.role != "val")]
    if odd := [name for name in within or () if safe(name) not in domains]:
        raise UserError(f"--within names {odd[0]!r}{near(safe(odd[0]), domains)}")
    folder = Path(output).expanduser()
    command = " ".join(["dfl report", *predictions])
    kept = _kept([Path(name).expanduser() for name in predictions])
    kept["resamples"] = resamples or kept.get("resamples", 1000)
    settings = Settings(folder.name, command, seed=seed, leaks=folder / "leaks", **kept)
    with files.claimed(folder, inside=True):
        return publish(entries, settings, folder)


def _kept(given: Sequence[Path]) -> dict[str, Any]:
    """Return what ``benchmark.json`` beside a folder of predictions says of how they are to be shown.

    Nothing where there is none, such as of a shared store, or several, which may say different things.
    """
    found = [file for path in given if path.is_dir() and (file := path.resolve().parent / "benchmark.json").is_file()]
    if len(found) != 1:
        return {}
    try:
        content = json.loads(found[0].read_text(encoding="utf-8"))
        spec = content["spec"]
        return {
            **{"spec": spec, "metrics": content.get("first") or content["metrics"][:1]},
            **{"groups": [str(one) for one in spec.get("groups") or []]},
            **{"years": {str(name): year for name, year in (spec.get("years") or {}).items()}},
            **{"data_until": {one["name"]: one["data_until"] or 0 for one in content["methods"]}},
            "learned": {
                (one["name"], seed): digest
                for one in content["methods"]
                for seed, digest in zip(one.get("seeds") or [], one.get("learned") or [], strict=False)
            },
            **{"reference": content["reference"], "pictures": bool(spec.get("pictures", True))},
            **{"means": {safe(name): [*map(safe, of)] for name, of in (spec.get("means") or {}).items()}},
            **{"before": {safe(key): safe(value) for key, value in (spec.get("before") or {}).items()}},
            **{"surrogate": spec.get("surrogate") or "", "resamples": int(spec.get("resamples", 1000))},
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{found[0]} is no benchmark.json of dfl benchmark: {error!r}; move it or mend it") from error


def _role(within: Sequence[str]) -> Callable[[str], str]:
    names = {safe(name) for name in within}
    return lambda domain: "within" if domain in names else "cross"


def of_spec(spec: Spec, seed: int, command: str, hashes: runs.DataHashes) -> dict[str, Any]:
    """Write tables and page of what a benchmark has so far; return the content of ``benchmark.json``."""
    entries: list[Entry] = []
    for one in spec.runs:
        entries += runs.scores_of(spec, one)
        if not one.predictions and runs.is_trained(spec, one):
            found = runs.tests(spec, one, runs.Detector(spec, one), hashes)
            entries += [of_store(test.file) for test in found if store.find(test.file, test.facts)]
    before, surrogate = changes.asked(spec)
    settings = Settings(
        name=spec.name,
        command=command,
        spec=spec.content,
        metrics=["video_auroc"] * (spec.unit == "video") + (spec.metrics or runs.monitored(spec)),
        groups=spec.groups,
        years=spec.years,
        data_until={one.method: one.data_until for one in spec.runs},
        learned={(one.method, one.seed): runs.noted(spec, one) for one in spec.runs},
        reference=spec.reference,
        means=means.asked(spec),
        before=before,
        surrogate=surrogate,
        resamples=spec.resamples,
        seed=seed,
        pictures=spec.pictures,
        leaks=spec.output / "leaks",
        cost=_costs(spec),
    )
    return publish(entries, settings, spec.output)


def publish(entries: Sequence[Entry], settings: Settings, folder: Path) -> dict[str, Any]:
    """Compute all numbers, write tables and page, and print the headline table.

    Raises:
        UserError: If entries are there twice, or of different images, and if a file cannot be written.
    """
    entries = _each_once(entries)
    content = {**build(entries, settings), "created": datetime.now(UTC).isoformat(timespec="seconds")}
    found = spectra(_by_generator(entries))
    save(content, folder)
    files.write(folder / "report.html", page(content, found))
    tensorboard.log(content, folder, found)
    show(content)
    names = "tables.md, tables.tex, cells.csv, statistics.csv"
    print(f"report: {folder / 'report.html'} (tables: {names}; all numbers: benchmark.json)")
    return content


def _each_once(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries, of which no two are of one method, seed, domain and variant: they would count as two seeds.

    Raises:
        UserError: If two are.
    """
    seen: dict[tuple[Any, ...], Entry] = {}
    for one in entries:
        other = seen.setdefault((one.method, one.seed, one.domain, one.variant), one)
        if other is not one:
            places = [e.scored.facts.get("external") or str(getattr(e.scored, "file", "")) for e in (other, one)]
            raise UserError(
                f"the predictions of {one.title} are given twice, in {places[0]} and {places[1]}: remove one, such as "
                "that from before it was trained anew; detectors are named apart by a column detector, and seeds in a "
                "spec, predictions: [FILE, FILE]"
            )
    return [*seen.values()]


def _by_generator(entries: Sequence[Entry]) -> dict[str, pa.Array]:
    """Return the paths of the stored images of each generator, and of real ones; some may be there more than once."""
    paths: dict[str, list[pa.Array]] = {}
    for (_, variant), some in by_domain(one for one in entries if one.role != "val").items():
        scored = own_first(some)[0].scored
        if variant != STORED or "generator" not in scored.names:
            continue
        for path, label, generator in zip(*map(scored.parts, ("path", "label", "generator")), strict=True):
            named = pc.if_else(pc.equal(label, 0), REAL, generator.cast(pa.string()).fill_null(""))
            for name in named.unique().to_pylist():
                if name:
                    paths.setdefault(name, []).append(path.filter(pc.equal(named, name)).cast(pa.large_string()))
    return {name: joined(own) for name, own in paths.items()}


def show(content: Mapping[str, Any]) -> None:
    """Print the summary and method x domain of the first metric."""
    for title, head, rows, _ in tables(Lookup(content))[:2]:
        shown = terminal_table(*head, title=title)
        for row in rows:
            shown.add_row(*row)
        console(200).print(shown)
    for domain in content["domains"]:
        for flag in domain["flags"]:
            print(visible(f"{domain['name']}: {flag}"))


def _costs(spec: Spec) -> Mapping[str, Mapping[str, Any]]:
    """Return what testing cost, by method; of several seeds the first that is known."""
    costs: dict[str, Mapping[str, Any]] = {}
    for one in spec.runs:
        file = runs.cost_file(spec, one)
        if one.method not in costs and file.is_file():
            costs[one.method] = json.loads(file.read_text(encoding="utf-8"))
    return costs
