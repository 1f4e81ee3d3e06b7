"""A graph of ``dfl export --to onnx`` as a detector: ``dfl predict photos/ --onnx FILE``.

A stranger's graph is data, like a checkpoint: what its metadata say is checked by the rules for checkpoints, and it may
not name other files. onnxruntime computes what the graph says, so neither time nor memory have a bound.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from dfl.cli.checkpoints import transform_of
from dfl.data.appearance import Usual
from dfl.detectors import Detector
from dfl.detectors.base import verdicts_of
from dfl.detectors.outputs import Outputs
from dfl.errors import UserError
from dfl.metrics.verdicts import Verdicts
from dfl.runs.archive import distrusted
from dfl.runs.find import GRAPHS
from dfl.runs.plain import Misfit, fit, untrusted
from dfl.sharing import graph


class About(NamedTuple):
    """What a graph says of itself."""

    detector: str
    size: int
    mean: tuple[float, float, float]
    values: graph.Values
    class_names: tuple[str, ...]
    threshold: float
    verdicts: Verdicts | None
    transform: dict[str, Any] | None
    usual: Usual | None


def about(file: Path) -> About:
    """Return what a graph says of itself, checked; the graph is not run.

    Raises:
        UserError: If packages are missing, or the file is not there, no graph of ``dfl export``, or not to be trusted.
    """
    graph.need_onnx()
    import onnx

    if file.suffix == ".pt2":
        raise UserError(f"{file} is no graph of ONNX: {GRAPHS['.pt2'].format(file)}")
    if (inside := file / "model.onnx").is_file():
        raise UserError(f"--onnx {file} is a folder; name the file in it: {inside}")
    if not file.is_file():
        raise UserError(f"no graph {file.absolute()}")
    with distrusted(file):
        model = onnx.load(file, load_external_data=False)
        tensors = onnx.external_data_helper._get_all_tensors(model)
        if any(onnx.external_data_helper.uses_external_data(one) for one in tensors):
            raise untrusted(file, "it names other files for its weights")
        said = {one.key: one.value for one in model.metadata_props}.get(graph.KEY)
        if said is None:
            raise UserError(f"{file} was not written by dfl export: it does not say what its outputs mean")
        content = json.loads(said)
        try:
            return _checked(content, file)
        except Misfit as error:
            raise untrusted(file, f"it says of its detector what {error}") from None


def _checked(content: Mapping[str, Any], file: Path) -> About:
    own, export = content["dfl"], content["export"]
    threshold = own["threshold"]
    if threshold is not None and not 0 <= fit(threshold, float) <= 1.001:
        raise untrusted(file, "its threshold is no probability")
    return About(
        detector=fit(export["detector"], str),
        size=fit(own["input"]["size"], int, "input_size"),
        mean=fit(own["input"]["mean"], tuple[float, float, float]),
        values=fit(export["values"], graph.Values),
        class_names=tuple(fit(export["class_names"], list[str])),
        threshold=float("nan") if threshold is None else threshold,
        verdicts=verdicts_of(own),
        transform=transform_of(content, file),
        usual=Usual.of_file(content["DataModule"]["usual"]),
    )


class OnnxModel(Detector):
    """A detector that is a file of ONNX; it scores, and learns nothing.

    Args:
        file: Of ``dfl export --to onnx``.
    """

    places: ClassVar[tuple[str, ...]] = ("file",)

    def __init__(self, file: str) -> None:
        said = about(Path(file).expanduser())
        self.mean = said.mean
        super().__init__(input_size=said.size)
        self.values, self.class_names, self.verdicts = said.values, said.class_names, said.verdicts
        self.threshold.fill_(said.threshold)
        self.usual = said.usual
        with distrusted(file):
            self.run = graph.run_onnx(Path(file).expanduser())

    def setup(self, stage: str) -> None:
        """Hand to the data what a checkpoint would: what training images look like."""
        super().setup(stage)
        data: Any = getattr(self.trainer, "datamodule", None)
        if data is not None and self.usual is not None:
            data.load_state_dict({"usual": self.usual.ranges})

    def forward(self, image: Tensor) -> Outputs:
        """Return what the graph gives of images (N, 3, H, W) in [0, 1]."""
        pixels = (image * 255).round().to(torch.uint8) if self.values == "uint8" else image
        out: Any = {name: value.to(image.device) for name, value in self.run(pixels.cpu().contiguous()).items()}
        return out

    def loss(self, out: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Raise a UserError: a graph is not trained."""
        raise UserError("a graph of ONNX is not trained: fit takes the checkpoint that it was made of")
