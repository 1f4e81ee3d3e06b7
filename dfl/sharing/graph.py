"""A detector as one graph for other programs: pixels in, log-odds out, with the preprocessing inside.

The graph begins with the network's own normalisation; what lies before it, how an image is brought to its size, is the
caller's, and is written down in the metadata. LoRA is added into the weights. The number of images is open.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor, nn

from dfl.detectors import Detector
from dfl.errors import UserError, first_line
from dfl.networks import merge_lora

#: Outputs of a graph, those of them that a detector gives; names as in `dfl.detectors.outputs`.
OUTPUTS = ("logit", "class_logit", "mask_logit")
#: Why a detector has no graph, by its class.
NO_GRAPH = {
    "DeFake": "reads captions too, through a tokenizer",
    "ForestProbe": "walks trees until it meets a leaf, as often as the images ask for",
    "GradCam": "takes its map from gradients, which a graph does not have; its network alone is a Classifier",
    "Sida": "writes words, each after the other; --to safetensors gives models that transformers opens",
}
#: What pixels a graph takes: integers from 0 to 255, or numbers in [0, 1].
Values = Literal["uint8", "float"]
#: The set of operators that is asked for; of more than this onnxruntime 1.20 need not know.
OPSET = 18
#: Largest graph in one file: the format ends at 2 GiB.
LARGEST = 2**31
#: The key of a graph's metadata, whose value is JSON.
KEY = "dfl"

Run = Callable[[Tensor], dict[str, Tensor]]


class Graph(nn.Module):
    """The part of a detector that a graph holds.

    Args:
        detector: A copy without LoRA is taken.
        values: Of the pixels that come in.
    """

    def __init__(self, detector: Detector, values: Values) -> None:
        super().__init__()
        self.detector, self.values = merge_lora(detector).eval().requires_grad_(False), values

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Map images (N, 3, H, W), uint8 or float32 in [0, 1], to those of `OUTPUTS` that there are, float32."""
        if self.values == "uint8":
            image = image.to(torch.float32) / 255
        out: Any = self.detector(image)
        return {name: out[name].float() for name in OUTPUTS if name in out}


def check(detector: Detector, padded: bool, values: Values) -> None:
    """Raise a UserError if a detector has no graph.

    Args:
        detector: The detector.
        padded: Whether its images are padded: what is padded has the mean colour, which is no integer.
        values: Of the pixels that come in.
    """
    inside = {type(one).__name__ for one in detector.modules()} & NO_GRAPH.keys()
    if inside:
        name = sorted(inside)[0]
        raise UserError(f"{name} has no graph: it {NO_GRAPH[name]}")
    if padded and values == "uint8":
        raise UserError("padding has the network's mean colour, which uint8 cannot say: add --values float")


def traced(graph: Graph, size: int, free: bool) -> Any:
    """Return the program of a graph.

    Args:
        graph: The graph.
        size: Side of its images in pixels.
        free: Whether images may have any other size too.

    Raises:
        UserError: If torch cannot follow it.
    """
    image = torch.zeros(2, 3, size, size, dtype=torch.uint8 if graph.values == "uint8" else torch.float32)
    sizes: dict[int, Any] = {0: torch.export.Dim("images", max=1024)}
    if free:
        sizes |= {2: torch.export.Dim("height", min=16, max=8192), 3: torch.export.Dim("width", min=16, max=8192)}
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(graph, (image,), dynamic_shapes={"image": sizes}, strict=False)
    except Exception as error:  # of many kinds, each from another depth of torch
        name = type(graph.detector).__name__
        raise UserError(f"torch.export cannot follow {name}: {first_line(error)[:200]}") from error


def write_pt2(program: Any, file: Path, metadata: Mapping[str, Any]) -> Run:
    """Write a program as torch's own file; return what runs the file."""
    torch.export.save(program, file, extra_files={f"{KEY}.json": json.dumps(metadata)})
    module = torch.export.load(file).module()

    def run(image: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            out: dict[str, Tensor] = module(image)
        return out

    return run


def write_onnx(program: Any, file: Path, metadata: Mapping[str, Any]) -> Run:
    """Write a program as ONNX, its metadata under `KEY`; return what runs the file.

    Raises:
        UserError: If packages are missing, the graph is too large, or there is an operator that ONNX does not have.
    """
    need_onnx()
    import onnx

    with torch.no_grad():
        names = list(program.module()(torch.zeros_like(program.example_inputs[0][0])))
    try:
        with _quiet():
            made = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, input_names=["image"], output_names=names, verbose=False
            )
    except Exception as error:  # of the exporter, of many kinds
        raise UserError(f"ONNX has no operators for this network: {first_line(error)[:200]}") from error
    assert made is not None
    model = made.model_proto
    if model.ByteSize() >= LARGEST:
        raise UserError(f"the graph takes {model.ByteSize():,} bytes, and a file of ONNX ends at 2 GiB: take --to pt2")
    onnx.helper.set_model_props(model, {KEY: json.dumps(metadata)})
    onnx.save(model, file)
    return run_onnx(file)


def say(file: Path, metadata: Mapping[str, Any]) -> None:
    """Put into a file of ONNX what it says of itself, in the place of what it said before."""
    import onnx

    model = onnx.load(file)
    onnx.helper.set_model_props(model, {KEY: json.dumps(metadata)})
    onnx.save(model, file)


def run_onnx(file: Path) -> Run:
    """Return what runs a file of ONNX on the CPU: images in, outputs by name."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]

    def run(image: Tensor) -> dict[str, Tensor]:
        found = session.run(names, {"image": image.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return run


def quantized(file: Path, target: Path) -> Run:
    """Write a graph of ONNX with weights of 8 bits, whose activations are rounded as they come; return what runs it.

    Convolutions in groups stay as they are: their channels differ by orders of magnitude, and onnxruntime has one scale
    for all of them. A MobileNetV2 with all 8 bits fell from AUROC 0.97 to 0.60.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    nodes = onnx.load(file).graph.node
    grouped = [one.name for one in nodes if any(word.name == "group" and word.i > 1 for word in one.attribute)]
    with _quiet():  # 8 bits without a sign: for convolutions onnxruntime has no others
        quantize_dynamic(file, target, weight_type=QuantType.QUInt8, nodes_to_exclude=grouped)
    return run_onnx(target)


def need_onnx() -> None:
    """Raise a UserError if a package is missing."""
    for wanted in ("onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"):
        if not RequirementCache(wanted):
            raise UserError(f"graphs of ONNX need the package {wanted}: pip install 'dfl[export]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what exporters say of themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
