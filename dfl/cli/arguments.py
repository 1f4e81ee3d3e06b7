"""What a command asks for, by its words: the configs, the run, and the checkpoint or graph that it takes."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfl import detectors
from dfl.cli import checkpoints, configs
from dfl.cli.checkpoints import Trained
from dfl.cli.configs import mapping
from dfl.cli.words import pairs
from dfl.detectors.renamed import NEW, OLD, renamed
from dfl.errors import UserError
from dfl.runs.checkpoint import previous
from dfl.runs.find import WHICH, resolve, stage
from dfl.runs.settings import flat
from dfl.sharing.onnx_model import About, about

#: How an option says that it has no value.
NONE = (None, "null", "None")
#: A detector of dfl by the file that it lies in, or lay in.
_OURS = re.compile(r"\bdfl\.detectors(?:\.[a-z]\w*)+\.([A-Z]\w*)")


@dataclass
class Plan:
    """What a command asks for."""

    verb: str
    configs: list[str] = field(default_factory=list)
    typed: list[tuple[str, str | None]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    #: Content of the configs, in their order; files that they name are given by their whole path.
    layers: list[dict[str, Any]] = field(default_factory=list)
    root: Path = Path()
    name: str = "run"
    trained: Trained | None = None
    #: What a graph says of itself that scores in place of a checkpoint.
    graph: About | None = None
    #: Checkpoint of an earlier stage that `fit` begins with.
    init_from: Path | None = None
    #: Whether training goes on in the run's own folder.
    goes_on: bool = False
    #: Lines to print once, before the work starts.
    notes: list[str] = field(default_factory=list)

    def value(self, flag: str) -> str | None:
        """Return the typed value of a flag; None if it was not typed."""
        return dict(self.typed).get(flag)

    def written(self, key: str) -> Any:
        """Return the value of a top-level key in the configs; of several the last, None if there is none."""
        return next((layer[key] for layer in reversed(self.layers) if layer.get(key) is not None), None)

    def word(self, key: str) -> str | None:
        """Return the word that is typed or written for a key; None for none.

        Raises:
            UserError: If it is no word.
        """
        value = self.value(f"--{key}") or self.written(key)
        if value is not None and not isinstance(value, (str, int, float)):
            raise UserError(f"{key} must be a word, not {value!r}")
        return None if value is None else str(value)

    def gives(self, key: str) -> bool:
        """Whether a config or a typed flag sets the whole of ``model`` or ``data``."""
        return self.value(f"--{key}") is not None or any(key in layer for layer in self.layers)

    def gives_a(self, key: str) -> bool:
        """Whether a config, a typed flag or the checkpoint's run sets a key of this name, wherever."""
        if any(flag.endswith(f".{key}") or f"{key}:" in (value or "") for flag, value in self.typed):
            return True
        settings = flat({"configs": self.layers, "run": self.trained.run if self.trained else {}})
        return any(name.endswith(f".{key}") for name in settings)

    def files(self) -> list[str]:
        """Return the YAML files that were named, and those that they name."""
        named = [*self.configs, *(v for _, v in self.typed if v and v.endswith(".yaml"))]
        inner = [v for layer in self.layers for v in layer.values() if isinstance(v, str) and v.endswith(".yaml")]
        return [name for name in dict.fromkeys([*named, *inner]) if Path(name).is_file()]


def plan(words: list[str]) -> Plan:
    """Understand the words of a verb: find its configs, its run and its checkpoint.

    Raises:
        UserError: For words that make no sense, and for configs and checkpoints that are not there.
    """
    verb, *rest = words
    plan = Plan(verb)
    for flag, value in pairs(rest):
        flag = "--data.views" if (verb, flag) == ("predict", "--views") else flag
        if flag == "":
            plan.paths.append(_positional(verb, str(value)))
        elif flag in ("-c", "--config"):
            plan.configs.append(configs.find(str(value)))
        else:
            before = plan.value(flag)
            if before is not None and value != before and not flag.endswith("+"):
                raise UserError(f"{flag} is given twice, as {before!r} and as {value!r}; keep one")
            plan.typed.append((flag, configs.find(value) if value and value.endswith(".yaml") else value))
    plan.layers = configs.layers(plan.configs, plan.value("--data"))
    _rename_arguments(plan)
    if any(flag in ("-h", "--help") or flag.endswith(".help") for flag, _ in plan.typed):
        return plan
    plan.root = Path(plan.word("root") or ".").expanduser()
    if plan.value("--onnx") is None:
        _find_run(plan)
    else:
        _take_graph(plan)
    if verb == "predict" and not plan.paths and not plan.gives("data"):
        raise UserError("nothing to predict: name images or folders, dfl predict PATH..., or give --data NAME.yaml")
    if plan.value("--frames") and not plan.paths:
        raise UserError("--frames says how many frames predict takes of the videos among its paths: name some")
    if verb == "fit" and not (plan.trained and plan.trained.in_run):  # a run that goes on has begun with it
        plan.init_from = _find_stage(plan)
    return plan


def _rename_arguments(plan: Plan) -> None:
    """Put today's names in place of old ones: of arguments in the configs, with a note; of detectors everywhere.

    Raises:
        UserError: For an old name that is typed.
    """
    plan.typed = [
        (flag, _moved(value) if flag in ("--model", "--model.class_path") else value) for flag, value in plan.typed
    ]
    for name, layer in zip(plan.configs, plan.layers, strict=True):
        model = mapping(layer.get("model"))
        if isinstance(model.get("class_path"), str):
            model["class_path"] = _moved(model["class_path"])
        if start := mapping(model.get("init_args")).pop("start", None):
            layer["init_from"] = start
            plan.notes.append(f"note: {name} has model.start, which is now init_from: {start}")
        if OLD.isdisjoint(mapping(model.get("init_args"))):
            continue
        layer["model"] = model | {"init_args": renamed(model["init_args"], model.get("class_path"))}
        now = json.dumps(layer["model"]["init_args"]["criterion"])
        plan.notes.append(f"note: {name} has losses as older versions name them; now they are criterion: {now}")
    for flag, _ in plan.typed:
        old = flag.removeprefix("--model.").removeprefix("init_args.")
        if old in OLD:
            raise UserError(f"{flag} is now --model.criterion, with --model.criterion.{NEW[old]}")


def _moved(text: str | None) -> str | None:
    """Return a class path with ours where they are today: as in checkpoints, their last name alone counts."""
    found = _OURS.search(text or "")
    return _OURS.sub(r"dfl.detectors.\1", str(text)) if found and hasattr(detectors, found[1]) else text


def _positional(verb: str, word: str) -> str:
    if verb == "predict":
        return word
    if word.endswith(".yaml") or "=" in word:
        raise UserError(f"{word!r} stands alone; did you mean --{'' if '=' in word else 'config '}{word}?")
    raise UserError(f"{word!r} stands alone; {verb} takes options such as --config NAME.yaml; only predict takes paths")


# the run and its checkpoint


def _find_run(plan: Plan) -> None:
    """Find the run's name and the checkpoint that the command takes."""
    name = _name(plan)
    word = plan.word("ckpt_path")
    if plan.verb == "predict" and not word and not _gives_weights(plan, name):
        word = "best"
    if word is None or word in NONE:
        if plan.verb == "predict" and not plan.gives("model"):
            raise UserError(
                "predict needs a trained detector: --ckpt_path best, last or a file, or --model NAME and "
                "--model.weights FILE"
            )
        plan.name = name or "run"
        return
    last = plan.root / "checkpoints" / (name or "") / "last.ckpt"
    begun = last.is_file() or previous(last).is_file()
    if plan.verb == "fit" and word == "last" and name and plan.gives("model") and not begun:
        plan.name, plan.goes_on = name, True
        plan.notes.append(f"no {last} yet: starting afresh")
        return
    path = resolve(word, plan.root, name)
    wanted = _typed_class(plan) or configs.class_path_of(plan.written("model"))
    trained = plan.trained = checkpoints.read(path, plan.root, wanted)
    plan.name = name or trained.name
    plan.goes_on = path.parent.resolve() == (plan.root / "checkpoints" / plan.name).resolve()
    does = {"fit": "resuming" if trained.in_run else "starting from the weights of", "count": "counting"}
    newest = f": the newest run under {plan.root / 'checkpoints'}" if not name and word in WHICH else ""
    plan.notes += [f"{does.get(plan.verb, 'scoring with')} {trained}{newest}", *trained.notes]
    _check_class(plan, trained)
    _check_complete(plan, trained)


def _take_graph(plan: Plan) -> None:
    """Take a graph of ONNX for the detector, or raise a UserError if there is none or another detector is given too."""
    if other := next((flag for flag, _ in plan.typed if flag.startswith(("--ckpt_path", "--model"))), None):
        raise UserError(f"--onnx and {other} both give the detector; keep one")
    file = str(plan.value("--onnx"))
    plan.graph = about(Path(file).expanduser())
    plan.name = _name(plan) or Path(file).stem
    plan.notes.append(f"scoring with {file} ({plan.graph.detector})")
    plan.layers.append({"model": {"class_path": "dfl.sharing.onnx_model.OnnxModel", "init_args": {"file": file}}})
    plan.typed = [(flag, value) for flag, value in plan.typed if flag != "--onnx"]


def _name(plan: Plan) -> str | None:
    """Return the name of the run: typed or written, else that of the first config, else that of the detector."""
    name = plan.word("name")
    if name and (Path(name).name != name or name in (".", "..")):
        raise UserError(f"--name {name} must be the name of one folder; where it lies is set with --root")
    return name or (Path(plan.configs[0]).stem if plan.configs else configs.class_of(plan.value("--model"))) or None


def _gives_weights(plan: Plan, name: str | None) -> bool:
    """Whether a detector and its weights are given, and need no checkpoint: typed, or of a run that has none."""
    written = mapping(mapping(plan.written("model")).get("init_args")).get("weights")
    if not (plan.value("--model.weights") or written) or not plan.gives("model"):
        return False
    typed = plan.value("--model") is not None and plan.value("--name") is None
    return typed or not (plan.root / "checkpoints" / (name or "") / "best.ckpt").is_file()


def _find_stage(plan: Plan) -> Path | None:
    """Return the checkpoint whose weights a new run begins with: of ``--init_from``, or a foreign ``--ckpt_path``."""
    word, file = plan.word("init_from"), plan.trained.path if plan.trained else None
    if word is None or word in NONE:
        return file
    if file:
        raise UserError(f"--init_from {word} and --ckpt_path {file} both give weights; keep one")
    return stage(word, plan.root)


def _check_complete(plan: Plan, trained: Trained) -> None:
    """Raise if weights or data are missing that neither the checkpoint nor the user gives, or are given twice."""
    typed = {flag.removeprefix("--model.").removeprefix("init_args."): value for flag, value in plan.typed}
    written = [mapping(mapping(layer.get("model")).get("init_args")) for layer in plan.layers]
    model = {key: value for one in written for key, value in one.items()} | typed
    if not trained.run and (missing := trained.contents.missing(model)) and plan.verb != "count":
        raise UserError(f"{trained.path} {missing}")
    if plan.verb in ("fit", "validate", "test") and not trained.run.get("data") and not plan.gives("data"):
        why = trained.notes[-1].removeprefix("note: ") if trained.in_run else f"{trained.path} is not in a run of yours"
        raise UserError(f"{why}; no data are taken from it: give --data NAME.yaml")
    weights = plan.value("--model.weights")
    if weights and trained.all_weights and weights != str(trained.init_args.get("weights")):
        raise UserError(
            f"{trained.path} holds all weights, so those of --model.weights {weights} would not be read: leave it out, "
            "or give --ckpt_path null to take it and not the checkpoint"
        )


def _check_class(plan: Plan, trained: Trained) -> None:
    """Raise if another detector is typed than the checkpoint holds; say so if a config names another one."""
    typed = configs.class_of(_typed_class(plan))
    if typed and typed != trained.class_name:
        raise UserError(
            f"{trained.path} holds a {trained.class_name}, not a {typed}; leave out --model, or the checkpoint"
        )
    written = configs.class_of(plan.written("model"))
    if written and written != trained.class_name:
        if plan.verb == "fit":
            raise UserError(
                f"{trained.path} holds a {trained.class_name}, but {plan.configs[0]} trains a {written}; "
                "use the config it was trained with, or none"
            )
        plan.notes.append(f"note: the config's {written} is not used, the checkpoint's {trained.class_name} is")
    elif written and plan.verb == "fit":
        old, new = flat(trained.init_args), flat(mapping(mapping(plan.written("model")).get("init_args")))
        if changed := sorted(key for key in new.keys() & old.keys() if old[key] != new[key]):
            said = ", ".join(f"{key} {old[key]}, not {new[key]}" for key in changed)
            plan.notes.append(f"note: the checkpoint's settings are kept over the config's: {said}; a typed flag wins")


def _typed_class(plan: Plan) -> str:
    """Return the class path of the detector that is typed; empty for none."""
    return configs.class_path_of(plan.value("--model") or plan.value("--model.class_path"))
