"""The model card of a run, ``README.md``: what was measured of it and how to make it again, and nothing else.

Numbers come from files that ``dfl test`` (``results.json``) or ``dfl benchmark`` (``benchmark.json``) wrote. What is
not known is said to be not known.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import yaml

from dfl.cli import configs
from dfl.cli.checkpoints import Trained
from dfl.metrics.verdicts import percent
from dfl.runs.checkpoint import read_checkpoint
from dfl.runs.files import write
from dfl.sharing.measured import Numbers, Told, numbers_of

FILE = "README.md"
#: Word in the place of what nobody said.
UNKNOWN = "not stated"


def write_card(
    folder: Path, trained: Trained, content: Mapping[str, Any], root: Path, told: Told, repo: str | None = None
) -> None:
    """Write a card beside what it is of.

    Args:
        folder: Gets ``README.md``.
        trained: What the checkpoint knows of itself.
        content: Of ``config.json``.
        root: Folder that holds ``lightning_logs``.
        told: What only the user knows.
        repo: Name of the repository that it is for, ``user/repo``.

    Raises:
        UserError: If the results are not there, are none, or do not say which method is meant.
    """
    write(folder / FILE, markdown(trained, content, numbers_of(trained, root, told), told, repo))


def markdown(
    trained: Trained, content: Mapping[str, Any], numbers: Numbers, told: Told, repo: str | None = None
) -> str:
    """Return the card; the arguments are those of `write_card`."""
    name, method = trained.name, method_of(trained)
    front: dict[str, Any] = {"library_name": "dfl", "pipeline_tag": "image-classification"}
    front |= {"tags": ["deepfake-detection"]} | ({"license": told["license"]} if told.get("license") else {})
    head = yaml.safe_dump(front, sort_keys=False)
    paper = f"{method.paper} {method.year}" if method.paper else "none of its own"
    parts = [
        f"---\n{head}---\n\n# {name}\n\n{method.what}\n\n"
        f"A detector of fake images, made with `dfl` {content['dfl']['version']}.",
        _table(
            ("what", ""),
            [
                ("method", f"`{trained.class_name}`: {method.what}"),
                ("paper", paper),
                ("backbone", _backbone(trained)),
                ("images", _images(content)),
                ("trained on", ", ".join(f"`{configs.class_of(one)}`" for one in trained.train) or UNKNOWN),
                ("licence of these weights", told.get("license") or UNKNOWN),
                (
                    "licence of the training images",
                    told.get("data_license") or f"{UNKNOWN}; read the terms of each set",
                ),
                ("checkpoint", f"sha256 `{content['export']['checkpoint']}`"),
                ("export", f"{content['export']['to']}, weights sha256 `{content['export']['weights']}`"),
            ],
        ),
        "## Use\n\n" + _use(trained, repo or f"USER/{name}", content["export"]["to"]),
        "## Verdicts\n\n" + _verdicts(trained, content),
        "## What was measured\n\n" + _measured(numbers),
        "## Intended use, and misuse\n\n" + MISUSE,
        "## How to make it again\n\n" + _again(trained),
    ]
    return "\n\n".join(parts) + "\n"


#: What a score of any detector is for, and what it is not.
MISUSE = """For research on detectors, and as one of several hints for people who review images and know how often it \
is wrong on images like theirs.

Not as proof that an image is real or fake, nor for decisions on a person without somebody who looks. A detector \
answers for the generators and cameras that it has seen: on others it may be no better than chance, and a table that \
lacks a domain says nothing about it. Re-encoding, resizing and editing move scores. Where no groups of people were \
measured, nobody knows whether it errs alike on them. A high score is no statement about who made an image or why."""


def method_of(trained: Trained) -> configs.Method:
    """Return what ``dfl list`` says of a detector: of its backbone, where that is a network of a paper."""
    known = {one.name: one for one in configs.methods()}
    backbone = known.get(str(trained.init_args.get("backbone")))
    if backbone is not None and backbone.is_backbone:
        return backbone
    return known.get(trained.class_name) or configs.Method(trained.class_name, "A detector of its author's own.")


def _measured(numbers: Numbers) -> str:
    if not numbers.domains:
        return "Nothing that this card knows of: `dfl test` or `dfl benchmark` first, then share it again."
    text = [f"From {numbers.source}. Intervals are of 95 %, over images (or videos) of the domain."]
    text.append(_table(("domain", "real", "fake", "AUROC", "interval"), numbers.domains))
    if numbers.robustness:
        text.append("Degraded, mean over the domains:")
        text.append(_table(("what", "AUROC", "interval", "as stored"), numbers.robustness))
    else:
        text.append("Robustness against re-encoding, resizing and blur: not measured.")
    if numbers.groups:
        head = ("domain", "attribute", "group", "real", "called fake", "fake", "called real")
        text.append("Groups of people, at the threshold of validation:")
        text.append(_table(head, numbers.groups))
    else:
        text.append("Groups of people: not measured.")
    return "\n\n".join(text)


def _verdicts(trained: Trained, content: Mapping[str, Any]) -> str:
    verdicts = trained.contents.verdicts
    if verdicts is None:
        threshold = content["dfl"]["threshold"]
        chosen = f"{threshold:.4g}, chosen on validation" if threshold is not None else "none was chosen"
        return f"Threshold of the score: {chosen}. Scores are not calibrated."
    columns = (verdicts.rates, verdicts.thresholds, verdicts.odds, verdicts.fprs, verdicts.lows, verdicts.highs)
    points = zip(*columns, strict=True)
    rows = [
        (
            percent(rate) if rate else "best balanced accuracy",
            f"{at:.4g}",
            f"{odds:.3g}",
            percent(fpr),
            f"{percent(a)} to {percent(b)}",
        )
        for rate, at, odds, fpr, a, b in points
    ]
    head = ("wanted", "fake from score", "log-odds", "reals called fake", "of others like them (95 %)")
    return (
        f"On {verdicts.reals:,} real and {verdicts.fakes:,} fake validation images; the "
        f"calibrated probability is sigmoid({verdicts.scaled(4)}).\n\n" + _table(head, rows)
    )


def _use(trained: Trained, repo: str, to: str) -> str:
    if trained.class_name == "Sida":
        return (
            f'    transformers.AutoModelForImageTextToText.from_pretrained("{repo}", subfolder="language")\n'
            f'    transformers.AutoTokenizer.from_pretrained("{repo}", subfolder="language")\n'
            f'    transformers.AutoModel.from_pretrained("{repo}", subfolder="mask")    # where it has a SAM\n\n'
            "`heads.safetensors` holds the layers beside them. `dfl` opens the checkpoint that these were made of, and "
            "not these parts: `--ckpt_path` does not take this repository."
        )
    if to == "onnx":
        return "    dfl predict photos/ --onnx model.onnx"
    if to == "pt2":
        return '    torch.export.load("model.pt2").module()(image)["logit"]     # log-odds of fake'
    return (
        f"    dfl predict photos/ --ckpt_path hf://{repo}\n"
        f'    dfl.detectors.Detector.from_pretrained("{repo}")      # or this folder; images are floats in [0, 1]'
    )


def _again(trained: Trained) -> str:
    if not trained.run:
        return "The settings of the run are not known here."
    record = read_checkpoint(trained.path).get("callbacks", {}).get("SameRun", {})
    settings = yaml.safe_dump(_without_places(trained.run), sort_keys=False, allow_unicode=True)
    hashes = [f"- images of {name}: `{digest}`" for name, digest in sorted((record.get("data") or {}).items())]
    lines = [
        "Save the settings below as `run.yaml`, name your folders in place of `...`, and",
        "    dfl fit --config run.yaml",
        f"Seed {trained.run.get('seed_everything', 0)}; code {record.get('code', UNKNOWN)}; epoch {trained.epoch}, "
        f"step {trained.step}. sha256 of the rows that it saw:",
        "\n".join(hashes) or UNKNOWN,
        f"```yaml\n{settings}```",
    ]
    return "\n\n".join(lines)


def _without_places(value: Any) -> Any:
    """Return settings with ``...`` in place of folders of a disk; their last names stay."""
    if isinstance(value, Mapping):
        return {key: _without_places(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_places(inner) for inner in value]
    if isinstance(value, str) and (value.startswith(("/", "~", ".")) or ("/" in value and Path(value).exists())):
        return f".../{Path(value).name}"
    return value


def _backbone(trained: Trained) -> str:
    name = trained.init_args.get("backbone")
    if not isinstance(name, str):
        return "of its own"
    own = trained.run.get("model", {}).get("init_args", {})
    if not (own.get("pretrained", True) or own.get("weights")):
        return f"`{name}`, started at random"
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    licence = getattr(config, "license", None)
    source = f"weights of {Path(own['weights']).name}" if own.get("weights") else "timm's weights"
    return f"`{name}`, {source}; licence, as timm states it of its own: {licence or UNKNOWN}"


def _images(content: Mapping[str, Any]) -> str:
    transform = content["DataModule"]["transform"] or {}
    return (
        f"{content['dfl']['input']['size']} px, resize: {transform.get('resize', UNKNOWN)}, "
        f"{transform.get('interpolation', UNKNOWN)}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
