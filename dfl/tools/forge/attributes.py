"""Who a photo shows, in words for prompts: from a table, from a network by file, or from deepface.

    AttributesTable     columns of a CSV or Parquet file
    AttributesNet       a timm network or an ONNX file whose outputs are heads, such as FairFace's
    AttributesDeepFace  the package deepface, where it and its files are there

What they say is a guess about how somebody looks, fit for a prompt and for nothing else.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from lightning_utilities.core.imports import RequirementCache
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from dfl.data import csv_files
from dfl.errors import UserError, first_line
from dfl.networks import Normalize, create_backbone
from dfl.networks.exported import ExportedNetwork, network_files
from dfl.networks.weights import weights_file
from dfl.tools.forge.models.base import Words, files_hash
from dfl.tools.forge.photos import resized
from dfl.tools.forge.plan import Picture

#: Fields, and what columns are called that hold them.
COLUMNS = {
    "gender": ("gender", "sex"),
    "age": ("age",),
    "race": ("race", "ethnicity"),
    "emotion": ("emotion", "expression"),
}
#: What columns are called that name a photo.
NAMES = ("path", "name", "file", "filename", "image")
#: Outputs of FairFace's network, in their order (github.com/joojs/fairface, predict.py), as a sentence says them.
FAIRFACE = {
    "race": ["White", "Black", "Latino", "East Asian", "Southeast Asian", "Indian", "Middle Eastern"],
    "gender": ["man", "woman"],
    "age": ["0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "over 70"],
}


class AttributesTable(Words):
    """What a table says of photos.

    A row is a photo's if its first column of the names path, name, file, filename or image holds the photo's path (from
    the table's folder), its path in the set, its file name, or that without suffix.

    Args:
        file: CSV or Parquet.
        columns: Column of each field; by default those that are called gender, age, race and emotion.

    Raises:
        UserError: If the table is not there or names no photos, has no such column, or has two rows of one photo.
    """

    def __init__(self, file: str, columns: dict[str, str] | None = None) -> None:
        self.file = Path(file).expanduser()
        table = _text(self.file)
        names = table.column_names
        key = csv_files.called(self.file, names, NAMES)
        if key is None:
            raise UserError(f"{file} has no column that names photos ({', '.join(NAMES)}); it has {', '.join(names)}")
        if columns is None:
            found = {field: csv_files.called(self.file, names, words) for field, words in COLUMNS.items()}
            columns = {field: column for field, column in found.items() if column is not None}
        if lacking := [column for column in columns.values() if column not in names]:
            raise UserError(f"{file} has no column {lacking[0]!r}; it has {', '.join(names)}")
        if not columns:
            raise UserError(f"{file} has none of the columns {', '.join(COLUMNS)}; name others by columns")
        csv_files.once(self.file, names, (key, *columns.values()))
        self.fields = tuple(columns)
        self.rows: dict[str, dict[str, str]] = {}
        cells = zip(*(table[column].to_pylist() for column in columns.values()), strict=True)
        for name, row in zip(table[key].to_pylist(), cells, strict=True):
            if name in self.rows:
                raise UserError(f"{file} has two rows of {name}: remove one")
            self.rows[name] = {field: cell.strip() for field, cell in zip(columns, row, strict=True)}
        self.folder = self.file.absolute().parent

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Do nothing: the table is read."""

    def about(self) -> dict[str, Any]:
        """Return the hash of the table, and its fields."""
        return {"sha256": files_hash([self.file]), "fields": list(self.fields)}

    def __call__(self, pictures: list[Picture], images: list[np.ndarray]) -> list[dict[str, str]]:
        """Return the cells of each photo; none of a photo that the table lacks."""
        return [self.unseen(picture) for picture in pictures]

    def unseen(self, picture: Picture) -> dict[str, str]:
        """Return the cells of a photo; none of one that the table lacks."""
        path, file = os.path.abspath(picture.path), Path(picture.name)
        names = (path, os.path.relpath(path, self.folder), picture.name, file.name, file.stem)
        return next((self.rows[name] for name in names if name in self.rows), {})


def _text(file: Path) -> pa.Table:
    """Return all columns of a table as text without nulls."""
    if file.suffix.lower() != ".parquet":
        return csv_files.read(file)
    try:
        table = pq.read_table(file)
        columns = [pc.fill_null(column.cast(pa.string()), "") for column in table.columns]
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read the table {file}: {first_line(error)[:200]}") from error
    return pa.table(columns, table.column_names)


class AttributesNet(Words):
    """The strongest output of each head of a network that sees a photo at one size.

    Args:
        file: Weights of ``backbone``; or a network in ONNX (or OpenVINO's format) with one output (1, K).
        backbone: timm name.
        heads: Words of each field, in the order of the outputs; by default FairFace's: race, gender, age.
        size: Side of its images in pixels; of ONNX the file's own, if it has one.
        mean: Of images in [0, 1].
        std: Of images in [0, 1].

    Raises:
        UserError: If there is no such file, no head, or for a number out of bounds.
    """

    def __init__(
        self,
        file: str,
        backbone: str = "resnet34",
        heads: dict[str, list[str]] | None = None,
        size: int = 224,
        mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        std: Sequence[float] = IMAGENET_DEFAULT_STD,
    ) -> None:
        self.exported = Path(file).suffix.lower() in (".onnx", ".xml")
        self.files = network_files(file, "file") if self.exported else [weights_file(file)]
        self.heads = FAIRFACE if heads is None else heads
        if not self.heads or not all(self.heads.values()):
            raise UserError("heads must give the words of each field")
        if size < 1 or not len(mean) == len(std) == 3 or not np.isfinite([*mean, *std]).all() or min(std) <= 0:
            raise UserError(
                "AttributesNet takes size >= 1, mean and std of three numbers, those of std above 0, not "
                f"{size}, {list(mean)}, {list(std)}"
            )
        self.fields, self.backbone, self.size = tuple(self.heads), backbone, size
        self.view: tuple[Sequence[float], Sequence[float]] = (mean, std)

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Load the weights, float32, and show them a black picture; raises UserError if they do not fit it or heads."""
        outputs, file = sum(map(len, self.heads.values())), str(self.files[0].absolute())
        self.normalize: Callable[[torch.Tensor], torch.Tensor] = Normalize(*self.view)
        if self.exported:
            graph = ExportedNetwork(file, "attributes", device)
            seen, given = graph.input(), graph.output().name
            self.size = (seen.shape[2:3] or (None,))[0] or self.size
            self.network = lambda image: graph({seen.name: image.numpy()}, given)
        else:
            network: Any = create_backbone(self.backbone, False, file, num_classes=outputs)
            if network.at_random:
                raise UserError(f"{file} has no head of {outputs} outputs, which heads have words for")
            network.eval().to(device)
            self.network = lambda image: network(image.to(device)).cpu().numpy()
        try:
            self([], [np.zeros((self.size, self.size, 3), np.uint8)])
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # networks of one size say so in many ways
            raise UserError(f"{file} cannot be shown pictures of {self.size} px: {first_line(error)}") from error

    def about(self) -> dict[str, Any]:
        """Return the hash of the files, the heads, and what the network is shown."""
        settings = {"backbone": "" if self.exported else self.backbone, "heads": self.heads, "size": self.size}
        return settings | {"mean": list(self.view[0]), "std": list(self.view[1]), "sha256": files_hash(self.files)}

    @torch.no_grad()
    def __call__(self, pictures: list[Picture], images: list[np.ndarray]) -> list[dict[str, str]]:
        """Return the words of each photo: the strongest output of each head; one photo at a time."""
        return [self._words(image) for image in images]

    def _words(self, image: np.ndarray) -> dict[str, str]:
        shown = resized(image, (self.size, self.size))
        values = self.network(self.normalize(torch.from_numpy(shown).permute(2, 0, 1)[None].float() / 255))
        outputs = sum(map(len, self.heads.values()))
        if values.shape != (1, outputs):
            raise UserError(f"{self.files[0]} gives {values.shape} of a photo, and heads have {outputs} words")
        found, start = {}, 0
        for field, words in self.heads.items():
            found[field] = words[int(values[0, start : start + len(words)].argmax())]
            start += len(words)
        return found


class AttributesDeepFace(Words):
    """What the package deepface says, on onnxruntime; nothing is downloaded.

    Args:
        home: Folder that holds ``.deepface/weights/``; by default the user's own.
        fields: Those that are asked for.

    Raises:
        UserError: If the package or one of its files is not there.
    """

    #: By field, what deepface calls it, and the file that it is read from.
    KNOWN: ClassVar[Mapping[str, tuple[str, str]]] = {
        "gender": ("dominant_gender", "gender_model_weights.onnx"),
        "age": ("age", "age_model_weights.onnx"),
        "race": ("dominant_race", "race_model_single_batch.onnx"),
        "emotion": ("dominant_emotion", "facial_expression_model_weights.onnx"),
    }
    #: deepface's words that a sentence says otherwise.
    SAID: ClassVar[Mapping[str, str]] = {"fear": "afraid", "disgust": "disgusted", "surprise": "surprised"}

    def __init__(self, home: str = "~", fields: Sequence[str] = ("gender", "age", "race", "emotion")) -> None:
        if not RequirementCache("deepface"):
            raise UserError("AttributesDeepFace needs the package deepface: pip install deepface; or take another")
        if wrong := [field for field in fields if field not in self.KNOWN]:
            raise UserError(f"deepface has no {wrong[0]!r}; fields are {', '.join(self.KNOWN)}")
        self.home, self.fields = Path(home).expanduser(), tuple(fields)
        self.files = [self.home / ".deepface" / "weights" / self.KNOWN[field][1] for field in fields]
        if lacking := [file for file in self.files if not file.is_file()]:
            raise UserError(f"deepface's file {lacking[0]} is not there, and nothing is downloaded: put it there")

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Import deepface, which reads where its files are."""
        os.environ |= {"DEEPFACE_HOME": str(self.home), "DEEPFACE_BACKEND_ENGINE": "onnx"}
        from deepface import DeepFace

        self.network = DeepFace.analyze

    def about(self) -> dict[str, Any]:
        """Return the hash of the files, and the fields."""
        return {"sha256": files_hash(self.files), "fields": list(self.fields)}

    def __call__(self, pictures: list[Picture], images: list[np.ndarray]) -> list[dict[str, str]]:
        """Return deepface's words of each photo, all of which counts as the face."""
        words = {"detector_backend": "skip", "enforce_detection": False, "silent": True, "actions": list(self.fields)}
        found = [self.network(np.ascontiguousarray(image[..., ::-1]), **words)[0] for image in images]
        return [{field: self._said(one[self.KNOWN[field][0]]) for field in self.fields} for one in found]

    def _said(self, value: object) -> str:
        word = str(value).lower()
        return self.SAID.get(word, word)
