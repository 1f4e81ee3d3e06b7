"""One run of a benchmark: trained if it has to be, and tested on every domain whose predictions are not in the store.

What is done is on disk, so a run that is killed goes on: training at its last checkpoint, testing at the first domain
that lacks a variant. Nothing here depends on which process did what before.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from dfl.benchmark import store, training
from dfl.benchmark.collect import Collect, transform_hash
from dfl.benchmark.entries import Entry, of_others
from dfl.benchmark.spec import ALIKE, STORED, Run, Source, Spec, Variant, safe
from dfl.cli import app, checkpoints
from dfl.cli.checkpoints import Trained
from dfl.data.chains import alike, chain
from dfl.data.rows import Rows
from dfl.data.sources.written import built
from dfl.data.transforms import Transform
from dfl.errors import UserError
from dfl.runs.checkpoint import read_checkpoint
from dfl.runs.find import stage
from dfl.runs.weights_hash import WeightsHash

#: What a domain is to a run, where the spec does not say it: the data that its threshold was chosen on.
VALIDATION = "val"
#: Settings of the data that a test takes over from its run.
KEPT = ("batch_size", "eval_batch_size", "num_workers", "on_bad", "max_bad", "max_pixels")
#: Settings that decide which images are scored, and how exactly.
SCORING = ("trainer.precision", "data.on_bad", "data.max_pixels")


@dataclass(frozen=True)
class Test:
    """One file of the store."""

    domain: str
    variant: Variant
    role: str
    source: Source
    file: Path
    facts: dict[str, Any]

    @property
    def loader(self) -> str:
        """The name of its domain in a test of several."""
        return self.domain if self.variant.name == STORED else f"{self.domain}@{self.variant.name}"


class DataHashes:
    """Hashes of the test sets of a benchmark, each read once.

    Attributes:
        groups: Names of groups of people, of each test set that was read.
    """

    def __init__(self) -> None:
        self._hashes: dict[str, str] = {}
        self.groups: list[list[str]] = []

    def __call__(self, source: Source, name: str) -> str:
        """Return the hash of a source's split ``test``; ``name`` is its domain, for errors."""
        key = json.dumps(source, sort_keys=True, default=str)
        if key not in self._hashes:
            one = built(source, f"domain {name!r}")
            one.prepare()
            table = one.load("test")
            self.groups.append(pc.unique(table["group"].cast(pa.string())).to_pylist())
            self._hashes[key] = store.data_hash(table, Rows.of(table).sha256())
        return self._hashes[key]


class Detector:
    """The trained detector of a run, as far as its checkpoint tells."""

    def __init__(self, spec: Spec, run: Run) -> None:
        self.run = run
        #: The checkpoint that is tested.
        self.file = _checkpoint(spec, run)
        #: Hash of all that decides its scores but the images, and the side of what the network sees, in pixels.
        changed = self.file.stat().st_mtime_ns if self.file.is_file() else 0  # reading it says that it is not there
        self._trained, self.weights, self.size = _opened(self.file, changed, spec.root)

    @property
    def transform(self) -> Transform:
        """How it sees images in evaluation."""
        return Transform(**(self.run.transform or self._trained.transform or {}))

    def transform_hash(self, view: str) -> str:
        """Return the hash of the transform with a view."""
        return transform_hash(self.transform.spec(), self.size, view)

    @property
    def resize(self) -> dict[str, Any]:
        """The transform in plain words, as far as it matters in evaluation."""
        return {key: value for key, value in self.transform.spec().items() if key not in Transform.TRAINING}

    @property
    def kept(self) -> dict[str, Any]:
        """Settings of the data that its run had and its tests have too."""
        return {key: self._data[key] for key in KEPT if self._data.get(key) is not None}

    @property
    def _data(self) -> dict[str, Any]:
        """Settings of the data of its run; empty if they are not this user's own."""
        return (self._trained.run.get("data") or {}).get("init_args") or {}

    def validation(self, hashes: DataHashes) -> dict[str, Source]:
        """Return the sources of its validation images; none if they are not known."""
        train = self.run.train or self._data.get("train") or []
        parts = train if isinstance(train, list) else [train]
        by_name = self.run.val or self._data.get("val") or {str(i): one for i, one in enumerate(parts)}
        name = VALIDATION if len(by_name) == 1 else VALIDATION + "_{}"
        found = {
            name.format(safe(key)): {"class_path": "Only", "init_args": {"source": one, "split": "val"}}
            for key, one in by_name.items()
        }
        if self.run.train or self.run.val:
            return found
        try:  # of an earlier training: its data may not be here, and its threshold is in the checkpoint
            for key, one in found.items():
                hashes(one, key)
        except UserError as error:
            training.say(f"{self.run.method}: no calibration, since its validation images are not here: {error}")
            return {}
        return found


@cache
def _opened(file: Path, changed: int, root: Path) -> tuple[Trained, str, int]:
    """Return what a checkpoint says, the hash of its detector, and the side of its images; it is read once.

    Args:
        file: The checkpoint.
        changed: Its time.
        root: Folder that holds ``checkpoints``.
    """
    trained, content = checkpoints.read(file, root), read_checkpoint(file)
    head = content.get("dfl", {})
    said = {**trained.init_args, "class_path": trained.class_path, "input": head.get("input")}
    frozen = head.get("backbone", {}).get("sha256")
    weights = store.digest(WeightsHash()(content["state_dict"]), json.dumps(said, default=str), frozen)
    return trained, weights, int(head["input"]["size"])


def scores_of(spec: Spec, run: Run) -> list[Entry]:
    """Return the entries of a run that is a file of scores; none of another one."""
    if not run.predictions:
        return []
    file, role = Path(run.predictions).expanduser(), partial(spec.role, run=run)
    return of_others(file, run.method, run.seed, role, run.trained_on)


def fit_words(spec: Spec, run: Run) -> list[str]:
    """Return the words of the ``fit`` of a run; the file of its data is written."""
    words = [*(f"--config={name}" for name in run.configs), f"--name={run.name}", f"--root={spec.root}"]
    data = {key: value for key, value in (("train", run.train), ("val", run.val)) if value is not None}
    if data:
        words.append(f"--data={_written(spec, f'{run.name}.yaml', data)}")
    if run.transform:
        words.append(f"--data.transform={json.dumps(run.transform)}")
    return [*words, f"--seed_everything={run.seed}", *run.options]


def is_trained(spec: Spec, run: Run) -> bool:
    """Tell whether a run needs no training any more.

    Raises:
        UserError: If another run lies in its folder.
    """
    if not run.name:
        return True
    return bool(training.state_of(note(spec, run), trained(spec, run)).get("complete"))


def note(spec: Spec, run: Run) -> Path:
    """Return where it is noted, beside its checkpoints, how far a run is."""
    return spec.root / "checkpoints" / run.name / "benchmark.json"


def trained(spec: Spec, run: Run) -> str:
    """Return the hash of what a run learns from."""
    return training.digest(training.learned(fit_words(spec, run)), run.train, run.val)


def noted(spec: Spec, run: Run) -> str | None:
    """Return the hash of what a run learned from, as it is noted; None of a run without a training."""
    file = note(spec, run) if run.name else None
    return json.loads(file.read_text(encoding="utf-8")).get("trained") if file and file.is_file() else None


def monitored(spec: Spec) -> list[str]:
    """Return what chose the best checkpoints, and what stands in for it where a test does not measure that."""
    for file in (note(spec, run) for run in spec.runs if run.name):
        if file.is_file():
            name = json.loads(file.read_text(encoding="utf-8")).get("monitor", "").rpartition("/")[2]
            return ["mask_iou", "auroc"] if name == "loss" else [name, "auroc"]
    return ["auroc"]


def tests(spec: Spec, run: Run, detector: Detector, hashes: DataHashes) -> Iterator[Test]:
    """Yield all files that a run gives, validation first."""
    for domain, source in detector.validation(hashes).items():
        yield _test(spec, detector, domain, Variant(""), VALIDATION, source, hashes)
    for domain, source in (spec.domains | spec.reals).items():
        for variant in spec.variants(domain):
            yield _test(spec, detector, domain, variant, spec.role(domain, run), source, hashes)


def missing(spec: Spec, run: Run, hashes: DataHashes) -> bool:
    """Tell whether a run has something to do."""
    if run.predictions:
        return False
    if not is_trained(spec, run):
        return True
    return not all(store.find(one.file, one.facts) for one in tests(spec, run, Detector(spec, run), hashes))


def complete(spec: Spec, run: Run, hashes: DataHashes, title: str) -> None:
    """Train and test what is not yet done, in this process.

    Args:
        spec: Of the benchmark.
        run: One of its runs.
        hashes: Of its test sets.
        title: What to call it on the terminal.

    Raises:
        UserError: For whatever the user can mend.
    """
    if not is_trained(spec, run):
        training.say(f"{title}: training")
        training.train(fit_words(spec, run), note(spec, run), trained(spec, run))
    detector = Detector(spec, run)
    wanted = [one for one in tests(spec, run, detector, hashes) if not store.find(one.file, one.facts)]
    for domain, view in dict.fromkeys((one.domain, one.variant.view) for one in wanted):
        part = [one for one in wanted if (one.domain, one.variant.view) == (domain, view)]
        training.say(f"{title}: testing on {domain}" + f" in {len(part)} variants" * (len(part) > 1))
        app.main(_test_words(spec, run, detector, part, view))
    if not wanted:
        training.say(f"{title}: complete")


def cost_file(spec: Spec, run: Run) -> Path:
    """Return where it is noted what testing a run costs."""
    return spec.output / "cost" / f"{safe(run.method)}-s{run.seed}.json"


def _test(
    spec: Spec, detector: Detector, domain: str, variant: Variant, role: str, source: Source, hashes: DataHashes
) -> Test:
    run, data = detector.run, hashes(source, domain)
    transform = detector.transform_hash(variant.view)
    # the name alone would outlive a change of what it stands for
    steps = [] if not variant.chain else alike(spec.alike) if variant.chain == ALIKE else chain(variant.chain)
    key = store.digest(detector.weights, transform, data, steps, _scoring(detector))[:16]
    facts = {
        **{"method": run.method, "seed": run.seed, "domain": domain, "variant": variant.name, "role": role},
        **{"weights": detector.weights, "transform": transform, "data": data, "trained_on": list(run.trained_on)},
        **{"size": detector.size, "resize": detector.resize, "view": variant.view},
    }
    file = store.place(spec.store, run.method, run.seed, domain, variant.name, key)
    if variant.chain:
        source = {"class_path": "Degraded", "init_args": {"source": source, "chain": steps}}
    return Test(domain, variant, role, source, file, facts)


def _scoring(detector: Detector) -> dict[str, str]:
    """Return the settings of a test that scores depend on: of its run, and what is typed."""
    typed = (word.removeprefix("--").partition("=") for word in detector.run.options)
    values = {f"data.{key}": str(value) for key, value in detector.kept.items()} | {
        key: value for key, _, value in typed
    }
    return {key: values[key] for key in SCORING if key in values}


def _test_words(spec: Spec, run: Run, detector: Detector, part: list[Test], view: str) -> list[str]:
    """Return the words of a test; the files of its data and of what is to be collected are written."""
    plan: dict[str, Any] = {
        "transform": detector.transform_hash(view),
        "cost": str(cost_file(spec, run)),
        "domains": {one.loader: {"file": str(one.file), "facts": one.facts} for one in part},
    }
    # what is in them is in their names: another process may have another part of this domain to do
    name = f"{run.name or safe(run.method)}-{part[0].domain}-{view}-{store.digest(plan)[:8]}"
    file = spec.output / "runs" / f"{name}.json"
    training.write(file, json.dumps(plan, indent=1))
    data = _written(
        spec, f"{name}.yaml", {**detector.kept, "test": {one.loader: one.source for one in part}, "views": view}
    )
    collect = {"class_path": f"{Collect.__module__}.Collect", "init_args": {"plan": str(file)}}
    words = ["test", f"--ckpt_path={detector.file}", f"--root={spec.root}", f"--data={data}"]
    words += [f"--data.transform={json.dumps(detector.transform.spec())}", "--trainer.logger=false"]
    words.append(f"--trainer.callbacks={json.dumps([collect])}")
    flags = dict.fromkeys(word for word in run.options if word.startswith(("--data.", "--trainer.")))
    return [*words, *(word for word in flags if not word.startswith(("--data.transform", "--trainer.callbacks")))]


def _written(spec: Spec, name: str, data: dict[str, Any]) -> Path:
    """Write data as a config, unless it is there; several processes may read it."""
    file = spec.output / "runs" / name
    content = yaml.safe_dump({"class_path": "DataModule", "init_args": data}, sort_keys=False)
    if not file.is_file() or file.read_text(encoding="utf-8") != content:
        training.write(file, content)
    return file


def _checkpoint(spec: Spec, run: Run) -> Path:
    """Return the checkpoint that is tested."""
    if not run.name:
        return stage(run.checkpoint, spec.root, "checkpoint")
    folder = spec.root / "checkpoints" / run.name
    return folder / f"{training.best_or_last(folder)}.ckpt"
