"""The words of a command, put in order: configs < what the checkpoint holds < what is typed.

Lightning alone lets a checkpoint override typed flags silently. Here the checkpoint becomes one more config between
the configs and the typed flags, so that ``test --ckpt_path best --data d.yaml`` needs no config and no typed flag is
ever lost.
"""

import json
from typing import Any

from dfl.cli import configs
from dfl.cli.arguments import Plan
from dfl.cli.configs import mapping
from dfl.cli.words import TRUE
from dfl.data.decoding import escaped
from dfl.data.sources.base import is_url
from dfl.errors import UserError

#: Settings of a run that its resume takes up again, without the model and the data.
RESUMED = ("trainer", "checkpoint", "last", "init_from", "seed_everything")


def arrange(plan: Plan) -> list[str]:
    """Return the words in the order in which the parser is to read them; each beats those before it."""
    trained = plan.trained
    base: dict[str, Any] = {}
    if plan.verb == "count":
        base["data"] = {"class_path": "dfl.data.DataModule"}
    if trained and not plan.gives("data") and not plan.paths and trained.run.get("data"):
        base["data"] = trained.run["data"]
    if trained and plan.verb == "fit":
        base |= {key: trained.run[key] for key in RESUMED if key in trained.run}
        base["trainer"] = _without_given_callbacks(plan, base.get("trainer") or {})
    layers = [base] * bool(base) + plan.layers
    if trained:
        layers.append({"model": {"class_path": trained.class_path, "init_args": trained.init_args}})
    words = [f"--config={configs.text(layer)}" for layer in layers]
    if plan.paths:
        words.append(_data_of_paths(plan))
    words += [f"--data={value}" for flag, value in plan.typed if flag == "--data"]
    if transform := _trained_transform(plan):
        words.append(f"--data.transform={json.dumps(transform)}")
    typed = [(flag, "true") if flag in TRUE and value is None else (flag, value) for flag, value in plan.typed]
    words += [f if value is None else f"{f}={value}" for f, value in typed if f not in ("--data", "--ckpt_path")]
    if trained and plan.verb != "count" and (plan.verb != "fit" or trained.in_run):
        words.append(f"--ckpt_path={trained.path}")
    return [plan.verb, *words]


def _without_given_callbacks(plan: Plan, trainer: dict[str, Any]) -> dict[str, Any]:
    """Return a run's trainer without the callbacks that this command appends too: the same command resumes."""
    appended = [value for flag, value in plan.typed if flag.startswith("--trainer.callbacks")]
    for layer in plan.layers:
        appended += mapping(layer.get("trainer")).get("callbacks+") or []
    names, before = {configs.class_of(value) for value in appended} - {""}, trainer.get("callbacks")
    if not names or not isinstance(before, list):
        return trainer
    return trainer | {"callbacks": [one for one in before if configs.class_of(one) not in names] or None}


def _trained_transform(plan: Plan) -> dict[str, Any] | None:
    """Return the transform of the run where it must beat the transform of the data that are given.

    It is left alone where the whole transform is typed, and where the data come from a class of another kind. Training
    goes on with all of it, what is trained is measured without its augmentation.
    """
    if plan.value("--data.transform") is not None or not (plan.graph or plan.trained):
        return None
    if plan.trained is None:
        return plan.graph.transform if plan.graph else None
    own, data = mapping(plan.trained.run.get("data")), plan.value("--data")
    if data is None and not plan.paths:
        data = plan.written("data")
    if data is not None and configs.class_of(data) != (configs.class_of(own) or "DataModule"):
        return None
    of_run = mapping(own.get("init_args")).get("transform")
    transform = of_run if plan.verb == "fit" else plan.trained.transform
    if transform and str(data).endswith(".yaml") and "transform" in configs.init_args_of(str(data)):
        plan.notes.append(
            f"note: the checkpoint's transform is used, not that of {data}; type --data.transform to change it"
        )
    return transform


def _data_of_paths(plan: Plan) -> str:
    """Return the option with the data of ``predict PATH...``; unreadable images are listed, not fatal."""
    if plan.value("--data") is not None:
        raise UserError("predict takes paths or --data, not both")
    name, frames = "dfl.data.sources.Paths", plan.value("--frames")
    named: dict[str, Any] = {"paths": list(map(escaped, plan.paths)), "frames": frames}
    if plan.value("--ray") and any(map(is_url, plan.paths)):
        if len(plan.paths) > 1 or frames:
            raise UserError("an address stands alone, without other paths and --frames: name a folder or a list")
        name, named = "dfl.cli.buckets.Bucket", {"address": plan.paths[0]}
    source = {"class_path": name, "init_args": named}
    init_args = {"predict": {"images": source}, "on_bad": "skip", "max_bad": 1.0}
    return f"--data={json.dumps({'class_path': 'dfl.data.DataModule', 'init_args': init_args})}"
