"""A network by file, in ONNX or in OpenVINO's format, as a function of NumPy arrays."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dfl.errors import UserError, near

#: What ONNX calls the types that networks of images have.
_TYPES = {"float": "float32", "float16": "float16", "double": "float64", "uint8": "uint8", "int64": "int64"}
#: By suffix, the package that runs a network, and the extra that has it.
_RUN_BY = {".onnx": ("onnxruntime", "export"), ".xml": ("openvino", "openvino")}


class Port(NamedTuple):
    """An input or output of a network: its name, its shape with None for what is free, its type."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype


def network_files(file: str, what: str) -> list[Path]:
    """Return the files of an exported network, that which is opened first; see `ExportedNetwork`.

    Raises:
        UserError: If one is not there, it is in another format, or the package is not installed that runs it.
    """
    path = Path(file).expanduser()
    if (suffix := path.suffix.lower()) not in _RUN_BY:
        raise UserError(f"{what}: {file} must be a network in ONNX (.onnx) or OpenVINO's format (.xml beside .bin)")
    files = [path] if suffix == ".onnx" else [path, path.with_suffix(".bin")]
    if lacks := next((one for one in files if not one.is_file()), None):
        raise UserError(f"{what}: no file {lacks} in {Path.cwd()}")
    package, extra = _RUN_BY[suffix]
    if find_spec(package) is None:
        raise UserError(f"{what}: {file} is run by the package {package}: pip install 'dfl[{extra}]'")
    return files


class ExportedNetwork:
    """A network that was exported to a file. Such a file holds a graph of known operations and numbers, and no code.

    It runs in its own precision on as many cores as torch uses. OpenVINO's run on the CPU.

    Args:
        file: ``.onnx`` in one file, or OpenVINO's ``.xml`` with the ``.bin`` of the same name beside it.
        what: What asks for it, for messages, such as ``GanFile.model``.
        device: ``cpu`` or ``cuda``, for ONNX.

    Attributes:
        inputs: By name.
        outputs: By name.

    Raises:
        UserError: If `network_files` does, or the file cannot be read.
    """

    def __init__(self, file: str, what: str, device: str = "cpu") -> None:
        self.what, self.file = what, network_files(file, what)[0]
        opener = _onnx if self.file.suffix.lower() == ".onnx" else _openvino
        inputs, outputs, self._run = opener(self.file, what, device)
        self.inputs, self.outputs = ({one.name: one for one in ports} for ports in (inputs, outputs))

    def input(self, name: str | None = None) -> Port:
        """Return the input of a name, or the only one.

        Raises:
            UserError: If there is none of the name, or there are several to choose from.
        """
        return self._port(self.inputs, name, "input")

    def output(self, name: str | None = None) -> Port:
        """Return the output of a name, or the only one; raises as `input` does."""
        return self._port(self.outputs, name, "output")

    def _port(self, ports: dict[str, Port], name: str | None, kind: str) -> Port:
        if name is None and len(ports) == 1:
            return next(iter(ports.values()))
        if name is None:
            raise UserError(f"{self.what}: {self.file} has {len(ports)} {kind}s, name one: {', '.join(ports)}")
        if name not in ports:
            raise UserError(f"{self.what}: {self.file} has no {kind} {name!r}{near(name, list(ports))}")
        return ports[name]

    def __call__(self, arrays: dict[str, np.ndarray], output: str) -> np.ndarray:
        """Run it.

        Args:
            arrays: By the name of the input, of its shape; they are brought to its type.
            output: Name of the output that is wanted.

        Raises:
            UserError: If it fails, in one line.
        """
        try:
            return self._run({name: x.astype(self.inputs[name].dtype) for name, x in arrays.items()}, output)
        except Exception as error:  # the errors of onnxruntime have no class in common
            shapes = ", ".join(f"{name} {x.shape}" for name, x in arrays.items())
            raise UserError(f"{self.what}: {self.file} fails on {shapes}: {_line(error)}") from error


_Opened = tuple[Sequence[Port], Sequence[Port], Callable[[dict[str, np.ndarray], str], np.ndarray]]


def _onnx(path: Path, what: str, device: str) -> _Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    wanted = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    there = onnxruntime.get_available_providers()
    providers = [one for one in dict.fromkeys((wanted, "CPUExecutionProvider")) if one in there]
    if wanted not in there:
        print(f"{what}: this onnxruntime has no CUDA and runs on the CPU; the package onnxruntime-gpu has")
    try:  # from its bytes: a file that says where the rest of it lies is not followed
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
    except Exception as error:
        raise UserError(f"{what}: {path} cannot be read as ONNX: {_line(error)}") from error

    def ports(of: Sequence[Any]) -> list[Port]:
        return [_port_of_onnx(one, what) for one in of]

    return ports(session.get_inputs()), ports(session.get_outputs()), lambda x, name: session.run([name], x)[0]


def _port_of_onnx(one: Any, what: str) -> Port:
    kind = one.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _TYPES:
        raise UserError(f"{what}: its {one.name} is of type {one.type}; there are {', '.join(_TYPES)}")
    return Port(one.name, tuple(n if isinstance(n, int) else None for n in one.shape), np.dtype(_TYPES[kind]))


def _openvino(path: Path, what: str, device: str) -> _Opened:
    import openvino

    core = openvino.Core()
    # its default on new CPUs is bfloat16, which changes pixels visibly
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    try:
        model = core.read_model(path)
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise UserError(f"{what}: {path} cannot be read by OpenVINO: {_line(error)}") from error

    def port(one: Any) -> Port:
        shape = tuple(n.get_length() if n.is_static else None for n in one.get_partial_shape())
        return Port(one.get_any_name(), shape, np.dtype(one.get_element_type().to_dtype()))

    return [*map(port, model.inputs)], [*map(port, model.outputs)], lambda x, name: compiled(x)[name]


def _line(error: Exception) -> str:
    """Return the line of an error that says something: OpenVINO's begin with places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(("Exception from", "Check '"))), type(error).__name__)
