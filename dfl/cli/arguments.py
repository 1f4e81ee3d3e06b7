"""The words of a command, put in order: configs < what the checkpoint holds < what is typed.

Lightning alone lets a checkpoint override typed flags silently. Here the checkpoint becomes one more config between
the configs and the typed flags, so that ``test --ckpt_path best --data d.yaml`` needs no config and no typed flag is
ever lost.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfl.cli import checkpoints, config_files, configs
from dfl.cli.checkpoints import Trained
from dfl.cli.configs import mapping
from dfl.data.decoding import escaped
from dfl.detectors.renamed import NEW, OLD, renamed
from dfl.errors import UserError
from dfl.runs.checkpoint import previous
from dfl.runs.find import resolve, stage

#: How an option says that it has no value.
NONE = (None, "null", "None")
#: Flags that may stand without a value.
ALONE = ("-h", "--help", "--print_config", "--overwrite")


@dataclass
class Plan:
    """What a command asks for."""

    verb: str
    configs: list[str] = field(default_factory=list)
    typed: list[tuple[str, str | None]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    #: Content of the configs, in their order; files that they name are given by their whole path.
    layers: list[dict[str, Any]] = field(default_factory=list)
    #: Configs that name a packaged file as if it lay beside them, and so are read with its whole path put in.
    mended: set[str] = field(default_factory=set)
    root: Path = Path()
    name: str = "run"
    trained: Trained | None = None
    #: Checkpoint of an earlier stage that `fit` begins with.
    init_from: Path | None = None
    #: Whether training goes on in the run's own folder.
    goes_on: bool = False
    #: Lines to print once, before the work starts.
    notes: list[str] = field(default_factory=list)

    def value(self, flag: str) -> str | None:
        """Return the typed value of a flag; None if it was not typed."""
        return dict(self.typed).get(flag)

    def gives(self, key: str) -> bool:
        """Whether a config or a typed flag sets the whole of ``model`` or ``data``."""
        return self.value(f"--{key}") is not None or any(key in layer for layer in self.layers)

    def gives_a(self, key: str) -> bool:
        """Whether a config, a typed flag or the checkpoint's run sets a key of this name, wherever."""
        inside = config_files.keys_in([self.layers, self.trained.run if self.trained else {}])
        return (
            any(flag.endswith(f".{key}") or f"{key}:" in (value or "") for flag, value in self.typed) or key in inside
        )

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
    made = Plan(verb)
    for flag, value in pairs(rest):
        if flag == "":
            made.paths.append(_positional(verb, str(value)))
        elif flag in ("-c", "--config"):
            made.configs.append(configs.find(str(value)))
        else:
            before = made.value(flag)
            if before is not None and value != before and not flag.endswith("+"):
                raise UserError(f"{flag} is given twice, as {before!r} and as {value!r}; keep one")
            made.typed.append((flag, configs.find(value) if value and value.endswith(".yaml") else value))
    made.layers, made.mended = config_files.read(made.configs)
    _rename_arguments(made)
    config_files.leave_sources_out(made.configs, made.layers, made.mended, made.value("--data"))
    if any(flag in ("-h", "--help") or flag.endswith(".help") for flag, _ in made.typed):
        return made
    made.root = Path(_word(made, "root") or ".").expanduser()
    _find_run(made)
    if verb == "fit" and not (made.trained and made.trained.in_run):  # a run that goes on has begun with it
        made.init_from = _find_stage(made)
    return made


def _rename_arguments(made: Plan) -> None:
    """Put today's names in place of old ones in the configs, and say so."""
    for name, layer in zip(made.configs, made.layers, strict=True):
        model = mapping(layer.get("model"))
        if OLD.isdisjoint(mapping(model.get("init_args"))):
            continue
        layer["model"] = model | {"init_args": renamed(model["init_args"], model.get("class_path"))}
        made.mended.add(name)
        made.notes.append(
            f"note: {name} has losses as older versions name them; now they are criterion: "
            f"{json.dumps(layer['model']['init_args']['criterion'])}"
        )
    for flag, _ in made.typed:
        old = flag.removeprefix("--model.").removeprefix("init_args.")
        if old in OLD:
            raise UserError(f"{flag} is now --model.criterion, with {'.'.join(('--model.criterion', NEW[old]))}")


def arrange(made: Plan) -> list[str]:
    """Return the words in the order in which the parser is to read them; each beats those before it."""
    trained = made.trained
    base: dict[str, Any] = {}
    if made.verb == "count":
        base["data"] = {"class_path": "dfl.data.DataModule"}
    if trained and not made.gives("data") and not made.paths and trained.run.get("data"):
        base["data"] = trained.run["data"]
    if trained and made.verb == "fit":
        keys = ("trainer", "checkpoint", "last", "init_from", "seed_everything")
        base |= {key: trained.run[key] for key in keys if key in trained.run}
        base["trainer"] = _without_given_callbacks(made, base.get("trainer") or {})
    words = [
        f"--config={json.dumps(layer, default=str) if name in made.mended else name}"
        for name, layer in zip(made.configs, made.layers, strict=True)
    ]
    if base:
        words.insert(0, f"--config={json.dumps(base)}")
    if trained:
        model = {"class_path": trained.class_path, "init_args": trained.init_args}
        words.append(f"--config={json.dumps({'model': model})}")
    if made.paths:
        words += _predict_paths(made)
    words += [f"--data={value}" for flag, value in made.typed if flag == "--data"]
    if transform := _trained_transform(made):
        words.append(f"--data.transform={json.dumps(transform)}")
    dropped = {"--data", "--ckpt_path"}
    typed = [("--overwrite", "true") if one == ("--overwrite", None) else one for one in made.typed]
    words += [flag if value is None else f"{flag}={value}" for flag, value in typed if flag not in dropped]
    if trained and made.verb != "count" and (made.verb != "fit" or trained.in_run):
        words.append(f"--ckpt_path={trained.path}")
    return [made.verb, *words]


def _without_given_callbacks(made: Plan, trainer: dict[str, Any]) -> dict[str, Any]:
    """Return a run's trainer without the callbacks that this command appends too: the same command resumes."""
    given = [value for flag, value in made.typed if flag.startswith("--trainer.callbacks")]
    for layer in made.layers:
        given += (layer.get("trainer") or {}).get("callbacks+") or []
    named = {_class_of(value) for value in given} - {""}
    held = trainer.get("callbacks")
    if not named or not isinstance(held, list):
        return trainer
    return trainer | {"callbacks": [one for one in held if _class_of(one) not in named] or None}


def pairs(words: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yield (flag, value), whether written ``--flag value`` or ``--flag=value``; ('', word) for a bare word."""
    at = 0
    while at < len(words):
        flag, equals, value = words[at].partition("=")
        at += 1
        if not flag.startswith("-"):
            yield "", flag + equals + value
        elif not flag.startswith("--") and flag not in ("-c", "-h"):
            raise UserError(f"options are written with two dashes: -{flag}")
        elif equals:
            yield flag, value
        elif flag in ALONE:
            yield flag, None
        elif at == len(words) or words[at].startswith("--"):
            if not flag.endswith(".help"):  # --model.help, or --model.help CLASS
                raise UserError(f"{flag} needs a value: {flag}=VALUE")
            yield flag, None
        else:
            yield flag, words[at]
            at += 1


def _positional(verb: str, word: str) -> str:
    if verb == "predict":
        return word
    if word.endswith(".yaml"):
        raise UserError(f"{word!r} stands alone; did you mean --config {word}?")
    if "=" in word:
        raise UserError(f"{word!r} stands alone; did you mean --{word}?")
    raise UserError(
        f"{word!r} stands alone; {verb} takes options such as --config NAME.yaml (only predict takes paths)"
    )


def _from_layers(made: Plan, key: str) -> Any:
    """Return a top-level value of the configs; the last one wins."""
    return next((layer[key] for layer in reversed(made.layers) if layer.get(key) is not None), None)


def _word(made: Plan, key: str) -> str | None:
    """Return the word that is typed or written for a key; None for none."""
    value = made.value(f"--{key}") or _from_layers(made, key)
    if value is not None and not isinstance(value, (str, int, float)):
        raise UserError(f"{key} must be a word, not {value!r}")
    return None if value is None else str(value)


def _find_run(made: Plan) -> None:
    """Find the run's name and the checkpoint that it starts from."""
    name = _word(made, "name")
    if name and (Path(name).name != name or name in (".", "..")):
        raise UserError(f"--name {name} must be the name of one folder; where it lies is set with --root")
    if not name and made.configs:
        name = Path(made.configs[0]).stem
    if not name and made.value("--model"):
        name = _class_of(made.value("--model"))
    word = _word(made, "ckpt_path")
    if made.verb == "predict" and not word and not _gives_weights(made, name):
        word = "best"
    if word in NONE:
        if made.verb == "predict" and not made.gives("model"):
            raise UserError(
                "predict needs a trained detector: --ckpt_path best, last or a file, or --model NAME and "
                "--model.weights FILE"
            )
        _check_paths(made)
        made.name = name or "run"
        return
    last = made.root / "checkpoints" / (name or "") / "last.ckpt"
    begun = last.is_file() or previous(last).is_file()
    if made.verb == "fit" and word == "last" and name and made.gives("model") and not begun:
        made.name, made.goes_on = name, True
        made.notes.append(f"no {last} yet: starting afresh")
        return
    path = resolve(word, made.root, name)
    trained = made.trained = checkpoints.read(path, made.root, _named_class(made))
    newest = not name and word in ("best", "last")
    made.name = name or (path.parent.name if trained.in_run else path.stem)
    what = {"fit": "resuming" if trained.in_run else "starting from the weights of", "count": "counting"}
    made.goes_on = path.parent.resolve() == (made.root / "checkpoints" / made.name).resolve()
    said = f"{what.get(made.verb, 'scoring with')} {trained}"
    made.notes.append(said + (f": the newest run under {made.root / 'checkpoints'}" if newest else ""))
    made.notes += trained.notes
    _check_class(made, trained)
    if not trained.run and (wanted := trained.contents.missing(_given_to_model(made))) and made.verb != "count":
        raise UserError(f"{path} {wanted}")
    if made.verb in ("fit", "validate", "test") and not trained.run.get("data") and not made.gives("data"):
        why = trained.notes[-1].removeprefix("note: ") if trained.in_run else f"{path} is not in a run of yours"
        raise UserError(f"{why}; no data are taken from it: give --data NAME.yaml")
    _check_paths(made)
    weights = made.value("--model.weights")
    if weights and trained.all_weights and weights != str(trained.init_args.get("weights")):
        raise UserError(
            f"{path} holds all weights, so those of --model.weights {weights} would not be read: leave it out, or give "
            "--ckpt_path null to take it and not the checkpoint"
        )


def _find_stage(made: Plan) -> Path | None:
    """Return the checkpoint whose weights a new run begins with: of ``--init_from``, or a foreign ``--ckpt_path``."""
    word, file = _word(made, "init_from"), made.trained.path if made.trained else None
    if word in NONE:
        return file
    if file:
        raise UserError(f"--init_from {word} and --ckpt_path {file} both give weights; keep one")
    return stage(str(word), made.root)


def _check_paths(made: Plan) -> None:
    if made.verb == "predict" and not made.paths and not made.gives("data"):
        raise UserError("nothing to predict: name images or folders, dfl predict PATH..., or give --data NAME.yaml")


def _gives_weights(made: Plan, name: str | None) -> bool:
    """Whether a detector and its weights are given, and need no checkpoint: typed, or of a run that has none."""
    model = _from_layers(made, "model")
    written = (model.get("init_args") or {}).get("weights") if isinstance(model, dict) else None
    if not (made.value("--model.weights") or written) or not made.gives("model"):
        return False
    typed = made.value("--model") is not None and made.value("--name") is None
    return typed or not (made.root / "checkpoints" / (name or "") / "best.ckpt").is_file()


def _named_class(made: Plan) -> str | None:
    """Return the class of the detector that the user names, on the line or in a config, as it is written there."""
    return _class_path(made.value("--model") or made.value("--model.class_path") or _from_layers(made, "model")) or None


def _given_to_model(made: Plan) -> dict[str, Any]:
    """Return the arguments of the detector that the user gives, on the line or in configs."""
    typed = {flag.removeprefix("--model.").removeprefix("init_args."): value for flag, value in made.typed}
    written = [layer.get("model") for layer in made.layers]
    return {k: v for w in written if isinstance(w, dict) for k, v in (w.get("init_args") or {}).items()} | typed


def _class_of(value: Any) -> str:
    """Return the short class name in the value of ``model`` or ``data``."""
    return _class_path(value).rpartition(".")[2]


def _class_path(value: Any) -> str:
    """Return the class in the value of ``model`` or ``data``: a name, a path, a mapping or a YAML file."""
    if isinstance(value, str) and value.endswith(".yaml"):
        value = configs.read(value)
    elif isinstance(value, str) and value.startswith("{"):
        value = configs.plain(value, "what is typed")
    if isinstance(value, dict):
        value = value.get("class_path", "")
    return str(value or "")


def _check_class(made: Plan, trained: Trained) -> None:
    """Raise if another detector is typed than the checkpoint holds; say so if a config names another one."""
    typed = _class_of(made.value("--model") or made.value("--model.class_path"))
    if typed and typed != trained.class_name:
        raise UserError(
            f"{trained.path} holds a {trained.class_name}, not a {typed}; leave out --model, or the checkpoint"
        )
    written = _class_of(_from_layers(made, "model"))
    if written and written != trained.class_name:
        if made.verb == "fit":
            raise UserError(
                f"{trained.path} holds a {trained.class_name}, but {made.configs[0]} trains a {written}; "
                "use the config it was trained with, or none"
            )
        made.notes.append(f"note: the config's {written} is not used, the checkpoint's {trained.class_name} is")
    elif written and made.verb == "fit":
        old, new = (
            dict(config_files.leaves(value))
            for value in (trained.init_args, mapping(_from_layers(made, "model")).get("init_args"))
        )
        if changed := sorted(key for key in new if key and key in old and old[key] != new[key]):
            said = ", ".join(f"{key} {old[key]}, not {new[key]}" for key in changed)
            made.notes.append(f"note: the checkpoint's settings are kept over the config's: {said}; a typed flag wins")


def _trained_transform(made: Plan) -> dict[str, Any] | None:
    """Return the transform of the run where it must beat the transform of the data that are given.

    It is left alone where the whole transform is typed, and where the data come from a class of another kind. Training
    goes on with all of it, what is trained is measured without its augmentation.
    """
    if made.trained is None or made.value("--data.transform") is not None:
        return None
    own = made.trained.run.get("data") or {}
    given = made.value("--data")
    if given is None and not made.paths:
        given = _from_layers(made, "data")
    if given is not None and _class_of(given) != (_class_of(own) or "DataModule"):
        return None
    whole = mapping(own.get("init_args")).get("transform") if made.verb == "fit" else None
    transform = whole or (made.trained.transform if made.verb != "fit" else None)
    if (
        transform
        and isinstance(given, str)
        and given.endswith(".yaml")
        and "transform" in config_files.init_args_of(given)
    ):
        made.notes.append(
            f"note: the checkpoint's transform is used, not that of {given}; type --data.transform to change it"
        )
    return transform


def _predict_paths(made: Plan) -> list[str]:
    """Return the words that make the data of ``predict PATH...``; unreadable images are listed, not fatal."""
    if made.gives("data") and made.value("--data") is not None:
        raise UserError("predict takes paths or --data, not both")
    source = {"class_path": "dfl.data.sources.Paths", "init_args": {"paths": list(map(escaped, made.paths))}}
    init_args = {"predict": {"images": source}, "on_bad": "skip", "max_bad": 1.0}
    return [f"--data={json.dumps({'class_path': 'dfl.data.DataModule', 'init_args': init_args})}"]
