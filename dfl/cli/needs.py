"""What a run needs before it begins: the weights that its detector names, the run it starts from, the images.

Weights are looked for and not loaded, since some do not fit into the memory of the machine that one asks on; tables of
images are read as ``fit`` reads them.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from pydoc import locate
from typing import Any

import huggingface_hub
import pyarrow.compute as pc
import timm
import torch
from jsonargparse import ActionConfigFile
from pytorch_lightning.cli import LightningArgumentParser

from dfl.cli import arguments, messages
from dfl.cli.arguments import Plan
from dfl.cli.checkpoints import data_module
from dfl.cli.configs import text
from dfl.cli.verbs import ParseError, Raising
from dfl.data import DataModule, Source
from dfl.detectors import Detector
from dfl.errors import UserError, behind
from dfl.networks.backbone import is_file
from dfl.runs.find import stage

#: Parts of a config, each with its class, that are looked at.
PARTS: tuple[tuple[str, type], ...] = (("model", Detector), ("data", DataModule))
#: Options beside those of the parts.
TAKEN = ("--root", "--name", "--init_from")
#: Arguments that name places which dfl itself fills.
FILLED = ("cache", "store")
#: Names that files of weights have in repositories of the Hub.
HUB_FILES = ("model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors", "pytorch_model.bin")
#: Endings by which a place is a file and no name on the Hub.
FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".h5", ".npz")
#: What is needed, whether it is there, and a line on it.
Need = tuple[str, bool, str]


class _Parser(Raising, LightningArgumentParser):
    """Lightning's parser, for one line an error."""


def planned(words: list[str]) -> Plan:
    """Understand the words after ``dfl doctor`` as those of ``fit``.

    Raises:
        UserError: For words that make no sense here, and configs that are not there.
    """
    plan = arguments.plan(["count", *words])  # which wants neither weights nor data
    for flag, _ in plan.typed:
        if not flag.startswith(("--model", "--data", *TAKEN)):
            raise UserError(
                f"no option {flag} of `dfl doctor`: it takes --config, --model, --data and {', '.join(TAKEN)}"
            )
    return plan


def of_run(plan: Plan) -> Iterator[Need]:
    """Yield what the run of a plan needs.

    Raises:
        UserError: For settings that cannot be parsed.
    """
    run = _settings(plan)
    if run.get("model"):
        yield from _weights(run["model"])
    if (word := plan.word("init_from")) not in arguments.NONE:
        try:
            yield "start", True, f"init_from: {stage(str(word), plan.root)}"
        except UserError as error:
            yield "start", False, str(error)
    if run.get("data"):
        yield from _images(run["data"])


def _settings(plan: Plan) -> Any:
    """Return the settings of model and data, with their defaults."""
    parser = _Parser()
    parser.add_argument("--config", action=ActionConfigFile)
    for name, kind in PARTS:
        parser.add_subclass_arguments(kind, name, required=False)
    layers = [{name: layer[name] for name, _ in PARTS if name in layer} for layer in plan.layers]
    typed = [f"{flag}={value}" for flag, value in plan.typed if flag.startswith(("--model", "--data"))]
    try:
        return parser.parse_args([f"--config={text(layer)}" for layer in layers if layer] + typed)
    except ParseError as error:
        options = messages.options(parser, *PARTS)
        raise UserError(messages.explain(str(error), options, typed, plan.files())) from error


def _weights(model: Any) -> Iterator[Need]:
    """Yield each place of weights that a detector's settings name: a file, a folder, a name on the Hub or in timm."""
    kind: Any = locate(model.class_path)
    given = model.init_args.as_dict()
    backbone, weights = given.get("backbone"), given.get("weights")
    from_timm = weights is not None and not is_file(weights)
    yield "model", True, model.class_path.rpartition(".")[2]
    for name in (one for one in kind.places if one not in FILLED and not (one == "weights" and from_timm)):
        value = given.get(name) or ()  # of several encoders one each; what is no file is a tag of timm
        for one in [value] if isinstance(value, str) else filter(is_file, value):
            yield "weights", *_place(f"model.{name}", one)
    if from_timm or (given.get("pretrained") and backbone and not (weights or given.get("folder"))):
        yield "weights", *_of_timm(f"{backbone.split('.')[0]}.{weights}" if from_timm else backbone)


def _place(flag: str, name: str) -> tuple[bool, str]:
    path = Path(name).expanduser()
    if path.exists():
        return True, f"{flag}: {name}"
    if len(path.parts) != 2 or path.suffix in FILES or name[0] in "./~":
        return False, f"{flag}: no {path.absolute()}"
    return _of_hub(f"{flag}: {name}", name, HUB_FILES)


def _of_timm(name: str) -> tuple[bool, str]:
    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if known is None or not known.has_weights:
        return False, f"timm has no weights for {name}: set model.weights to a file, or model.pretrained=false"
    if known.hf_hub_id:
        names = (known.hf_hub_filename,) if known.hf_hub_filename else HUB_FILES
        return _of_hub(f"{name} of timm", known.hf_hub_id, names)
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(str(known.url)).name
    return file.is_file(), f"{name} of timm: {'in' if file.is_file() else 'not in'} {file.parent}"


def _of_hub(what: str, repository: str, names: Iterable[str]) -> tuple[bool, str]:
    found = any(isinstance(huggingface_hub.try_to_load_from_cache(repository, name), str) for name in names)
    where = huggingface_hub.constants.HF_HUB_CACHE
    return (
        found,
        f"{what}: in {where}" if found else f"{what}: not in {where}; fit downloads it where there is a network",
    )


def _images(data: Any) -> Iterator[Need]:
    """Yield each set of images of a run, with its counts; what a source makes by itself is no need."""
    try:
        module = data_module(data.as_dict())
    except (UserError, ValueError) as error:
        yield "data", False, str(behind(error, UserError) or messages.of_constructor(error) or error)
        return
    sets = [("train", "train", source) for source in module.train_sources]
    sets += [
        (split, f"{split}/{domain}", one) for split in ("val", "test") for domain, one in module.sources[split].items()
    ]
    for split, what, source in sets:
        try:
            table = source.load(split)
            yield "data", True, f"{what}: {len(table):,} images, {pc.sum(table['label']).as_py():,} of them fake"
        except UserError as error:
            made = type(source).prepare is not Source.prepare
            yield "data", made, f"{what}: {'is made when fit begins' if made else error}"
