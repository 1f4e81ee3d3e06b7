"""``dfl export``: a trained detector as a folder for other programs, tried against its checkpoint before it is there.

    dfl export vit_scl -o FOLDER --to safetensors     weights and config.json; every verb opens it: --ckpt_path FOLDER
    dfl export vit_scl -o FOLDER --to onnx            a graph for onnxruntime, and dfl predict --onnx FOLDER/model.onnx
    dfl export vit_scl -o FOLDER --to pt2             a graph for torch.export.load

Preprocessing is inside, LoRA is merged, ``config.json`` says the rest. See docs/export.md.
"""

import math
import shutil
from pathlib import Path
from typing import Any, Literal, Unpack

import torch
from torch import Tensor

from dfl.cli.checkpoints import Trained
from dfl.cli.verbs import call
from dfl.detectors import Detector, Sida, load
from dfl.detectors.base import class_path
from dfl.detectors.loading import plain_arguments
from dfl.errors import UserError
from dfl.runs.checkpoint import read_checkpoint
from dfl.runs.files import sha256
from dfl.runs.output_folder import output_folder
from dfl.runs.plain import Misfit
from dfl.runs.shared import write_config, write_shared
from dfl.runs.weights_hash import WeightsHash
from dfl.sharing import eight_bits, graph, tried
from dfl.sharing.card import write_card
from dfl.sharing.graph import Run, Values
from dfl.sharing.measured import Told
from dfl.sharing.opened import opened

WHAT = "Write a trained detector for other programs, and compare it with its checkpoint."
To = Literal["safetensors", "onnx", "pt2"]
#: Most that a score may differ from the checkpoint's, and log-odds, where scores are so near 0 or 1 that they hide it:
#: this share of what is above 1. Log-odds have more room: float32 sums in another order moved a MobileNetV2's by 7e-5.
TOLERANCE, OF_LOG_ODDS = 1e-4, 1e-3


def main(argv: list[str]) -> Any:
    """Run the verb, from the words after ``dfl export``; return what `export` returns.

    Raises:
        UserError: For whatever the user can mend.
    """
    first = ("checkpoint", "1", "A run (its best), RUN/last, best, last, a file, a shared folder, or hf://user/repo.")
    return call(export, argv or ["--help"], "dfl export", WHAT, first, __doc__)


def export(
    checkpoint: str,
    output: str,
    to: To = "safetensors",
    images: list[str] | None = None,
    values: Values = "uint8",
    int8: bool = False,
    root: str = ".",
    weights: str | None = None,
    **told: Unpack[Told],
) -> dict[str, Any]:
    """Write a folder, and return what its ``config.json`` says.

    Args:
        checkpoint: What is exported.
        output: Folder; the files in it are ``config.json``, ``README.md`` and ``model.safetensors``, ``.onnx`` or
            ``.pt2``.
        to: Format.
        images: Images, folders or lists that checkpoint and export are compared on; by default those of the run's
            validation, else drawn ones.
        values: Pixels that a graph takes: uint8, 0 to 255, or float32 in [0, 1].
        int8: Write ``model.int8.onnx`` too, with weights of 8 bits, and measure on the run's validation what it costs.
        root: Folder that holds checkpoints/ and lightning_logs/.
        weights: File of frozen weights that the checkpoint leaves out.
        **told: See `dfl.sharing.measured.Told`.

    Raises:
        UserError: If the detector has no such form, the folder holds something else, or the export does not give what
            the checkpoint gives.
    """
    if int8 and to != "onnx":
        raise UserError(f"--int8 is a graph of onnxruntime: it goes with --to onnx, not with {to}")
    trained, detector = opened(checkpoint, root, weights=weights)
    settings = {"checkpoint": sha256(trained.path), "to": to, "images": images, "values": values, "int8": int8}
    with output_folder(output, "export", settings) as folder:
        if folder.done:
            print(f"{folder.folder} is there already, of the same checkpoint and settings")
            return {}
        try:
            content = write(folder.partial, trained, detector, settings)
            write_card(folder.partial, trained, content, Path(root).expanduser(), told)
        except BaseException:
            shutil.rmtree(folder.partial)
            raise
        folder.finish()
    print(f"wrote {folder.folder}: {', '.join(sorted(one.name for one in folder.folder.iterdir()))}")
    return content


def write(folder: Path, trained: Trained, detector: Detector, settings: dict[str, Any]) -> dict[str, Any]:
    """Fill a folder; return what its ``config.json`` says."""
    sample = tried.few(trained, detector.input_size, settings["images"])
    merged = detector.merged()
    with torch.no_grad():
        outputs = [name for name in graph.OUTPUTS if name in merged(sample.pixels[:1].float() / 255)]
    content = described(trained, merged, settings, outputs)
    if isinstance(detector, Sida) and settings["to"] == "safetensors":
        detector.export(folder)  # models of transformers, which open by themselves
    elif settings["to"] == "safetensors":
        if named := next((name for name in merged.shaping if trained.contents.places.get(name)), None):
            raise UserError(
                f"the network of {type(merged).__name__} follows from --model.{named}, a folder that only you have and "
                "a shared one does not hold: take --to onnx or pt2"
            )
        write_shared(folder, content, merged.state_dict())
        again = load(folder)
        content["export"]["parity"] = parity(detector, lambda image: again(image / 255), sample, "uint8")
    else:
        _write_graph(folder, content, trained, merged, detector, sample)
    write_config(folder, content)
    return content


def _write_graph(
    folder: Path, content: dict[str, Any], trained: Trained, merged: Detector, detector: Detector, sample: tried.Images
) -> None:
    about = content["export"]
    resize = tried.transform_of(trained).resize
    graph.check(detector, resize == "pad", about["values"])
    program = graph.traced(graph.Graph(merged, about["values"]), detector.input_size, resize == "whole")
    file = folder / f"model.{about['to']}"
    run = (graph.write_pt2 if about["to"] == "pt2" else graph.write_onnx)(program, file, content)
    about["parity"] = parity(detector, run, sample, about["values"])
    if about["int8"]:
        target = folder / "model.int8.onnx"
        every = tried.validation(trained, detector.input_size)
        cost, rule = eight_bits.cost(run, graph.quantized(file, target), every, about["values"])
        graph.say(target, content | {"dfl": content["dfl"] | rule})
        about["int8"] = cost | {"bytes": [file.stat().st_size, target.stat().st_size]} | rule
        print(eight_bits.said(about["int8"]))


def described(trained: Trained, merged: Detector, settings: dict[str, Any], outputs: list[str]) -> dict[str, Any]:
    """Return what a shared folder says beside its weights, as plain values: what a checkpoint says, and of the export.

    Of a run its settings, names of its images and places on its disk are left out.
    """
    content = read_checkpoint(trained.path)
    try:
        init_args, _ = plain_arguments(type(merged), {k: v for k, v in merged.hparams.items() if k[0] != "_"})
    except Misfit as error:
        raise UserError(f"{trained.path} has a setting that cannot be shared: its hyper-parameters {error}") from None
    if "pretrained" in init_args:
        init_args["pretrained"] = False  # all weights are here
    about = {key: value for key, value in content["dfl"].items() if key not in ("run", "backbone")}
    about |= {
        "class_path": class_path(type(merged)),
        "threshold": None if math.isnan(merged.threshold) else float(merged.threshold),
    }
    return {
        "dfl": about,
        "hyper_parameters": init_args,
        "DataModule": {"transform": trained.transform, "usual": trained.usual and trained.usual.ranges},
        "epoch": trained.epoch,
        "global_step": trained.step,
        "export": {
            **{name: value for name, value in settings.items() if name != "images"},
            "weights": WeightsHash()(merged.state_dict()),
            "detector": trained.class_name,
            "labels": {"0": "real", "1": "fake"},
            "outputs": outputs,
            "class_names": list(merged.class_names) if "class_logit" in outputs else [],
            "opset": graph.OPSET if settings["to"] == "onnx" else None,
        },
    }


def parity(detector: Detector, run: Run, sample: tried.Images, values: Values) -> dict[str, Any]:
    """Compare an export with its detector, in batches of several sizes.

    Returns:
        ``on``: which images; ``score`` and ``log_odds``: the largest difference of any output's sigmoid, and of the
        output itself, relative where it is above 1.

    Raises:
        UserError: If one of the two is more than `TOLERANCE`, `OF_LOG_ODDS`.
    """
    score = most = 0.0
    for pixels in tried.batches(sample.pixels):
        given = pixels if values == "uint8" else pixels.float() / 255
        with torch.no_grad():
            wanted: Any = detector(pixels.float() / 255)
            found = run(given)
        for name in (one for one in graph.OUTPUTS if one in wanted):
            own, other = wanted[name].float(), found[name].float()
            score = max(score, _largest(own.sigmoid() - other.sigmoid()))
            most = max(most, _largest((own - other) / own.abs().clamp(min=1)))
    if score > TOLERANCE or most > OF_LOG_ODDS:
        raise UserError(
            f"the export differs from its checkpoint on {sample.what}, scores by {score:.2g}, log-odds by {most:.2g}: "
            f"more than {TOLERANCE:g} and {OF_LOG_ODDS:g}, so it is not written"
        )
    print(f"the same as the checkpoint on {sample.what}: scores to {score:.1e}, log-odds to {most:.1e}")
    return {"on": sample.what, "score": score, "log_odds": most}


def _largest(difference: Tensor) -> float:
    """Return the largest of absolute values, infinity for NaN."""
    return float(difference.abs().nan_to_num(nan=math.inf).max())
