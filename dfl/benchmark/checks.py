"""What can be known to be wrong before the first training starts: in one line, and not after hours."""

import json

import pyarrow.compute as pc

from dfl.benchmark import changes, means
from dfl.benchmark import run as runs
from dfl.benchmark.compare import MEASURED
from dfl.benchmark.spec import Run, Source, Spec
from dfl.data.sources.written import built
from dfl.data.transforms import Transform
from dfl.errors import UserError, near
from dfl.metrics.fairness import attributes

#: Settings of the data that decide how images are seen, which keys of predictions hold.
SEEN = ("transform", "size", "views")


def options(run: Run) -> None:
    """Raise a UserError for an option of a run that would resize or see images otherwise than its keys say."""
    for word in run.options:
        flag = word.partition("=")[0]
        names = [name for name in flag.removeprefix("--").split(".") if name != "init_args"]
        if names[0] == "data" and names[1:2] and names[1] in SEEN:
            raise UserError(
                f"{flag} is no option of a benchmark: how images are resized and seen is set with transform and views "
                "of the spec, or in a run's config"
            )


def prepare(spec: Spec, hashes: runs.DataHashes) -> None:
    """Check what does not depend on a training before the first one starts, in one process: metrics and sources.

    Sources make what they need on disk before several processes ask for it at once.

    Raises:
        UserError: For a metric, domain, attribute or run that is none, and for a source that cannot be read.
    """
    changes.asked(spec)
    means.asked(spec)
    groups: list[list[str]] = []
    for run in spec.runs:
        try:
            Transform(**(run.transform or {}))
        except TypeError as error:
            raise UserError(f"{spec.file}: transform: {error}") from error
        for one in runs.scores_of(spec, run):
            groups.append(pc.unique(one.scored.column("group")).to_pylist())
            if one.domain not in spec.domains | spec.reals:
                raise UserError(f"{run.predictions} has the domain {one.domain!r}{near(one.domain, [*spec.domains])}")
    for where, names in (("", spec.metrics), ("reference: ", [one["metric"] for one in spec.reference])):
        for name in names:
            if name not in MEASURED:
                raise UserError(f"{spec.file}: {where}no metric {name!r}{near(str(name), [*MEASURED])}")
    wanted: list[tuple[Source, str]] = []
    for run in spec.runs:
        if run.name and not any(runs.note(spec, run).parent.glob("*.ckpt")):  # what has begun may do without
            parts = run.train if isinstance(run.train, list) else [run.train] * (run.train is not None)
            wanted += [(one, "train") for one in parts] + [(one, "val") for one in (run.val or {}).values()]
    for source, split in {json.dumps(one, sort_keys=True, default=str): one for one in wanted}.values():
        asked = built(source, str(spec.file))
        asked.prepare()
        asked.load(split)
    for name, source in (spec.domains | spec.reals).items():
        hashes(source, name)
    known = {name for own in (*groups, *hashes.groups) for name in _attributes(own)}
    if odd := [name for name in spec.groups if name not in known]:
        raise UserError(f"{spec.file}: groups: no domain has groups by {odd[0]!r}{near(odd[0], [*known])}")


def _attributes(groups: list[str]) -> list[str]:
    """Return the attributes of groups of people, of their names in one domain; none of fewer than two."""
    names = sorted({name for name in groups if name})
    return list(attributes({name: i for i, name in enumerate(names)})) if len(names) > 1 else []
