"""``dfl data faces``: a table whose images are the faces in the images or frames of other sources.

No picture is written: a face is a box, and a row names it as a place in its image (``#xywh=``, dfl/data/locators.py),
so that every detector and every later margin see the original pixels. Boxes come from a file, if the set has one, or
from OpenCV's YuNet with weights that lie on this machine.
"""

import json
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lightning_utilities.core.imports import RequirementCache

from dfl.data import csv_files
from dfl.data.containers import frame_count
from dfl.data.decoding import DecodeError
from dfl.data.locators import load_image, locate, split
from dfl.data.sources.base import ROW_SCHEMA
from dfl.errors import UserError, first_line, near
from dfl.runs.files import claimed
from dfl.tools.common import Common, findable, list_missing, parquet_file, processes, write_parquet
from dfl.tools.sources import read_rows

_HAS_YUNET = RequirementCache("opencv-python-headless>=4.8") or RequirementCache("opencv-python>=4.8")
#: Longest side of the image that the face detector gets, in pixels: YuNet was trained for faces of 10 to 300.
DETECTOR_SIDE = 640
#: Names of a box's columns: corner and size, or two corners.
CORNER_SIZE, CORNERS = ("x", "y", "w", "h"), ("x0", "y0", "x1", "y1")
Box = tuple[float, float, float, float]  # left, top, width, height
Boxes = dict[str, dict[int, list[Box]]]  # by absolute path and frame; -1 for an image


def faces(
    sources: list[str],
    output: str = "faces.parquet",
    boxes: str | None = None,
    weights: str | None = None,
    keep: Literal["largest", "all"] = "largest",
    margin: float = 0.3,
    square: bool = True,
    min_score: float = 0.8,
    max_missing: float = 0.05,
    **common: Unpack[Common],
) -> Path:
    """Write a table of faces.

    Args:
        sources: Data configs, folders, tables.
        output: The table, a Parquet file, read by ``Table``. What has no face is listed beside it (``.missing.csv``).
        boxes: File of boxes or landmarks: CSV or Parquet with ``path`` (relative to the file's folder), for videos
            ``frame``, and ``x, y, w, h``, or ``x0, y0, x1, y1``, or ``landmarks`` as JSON ``[[x, y], ...]``. A frame
            of a video takes the box of the nearest frame that has one.
        weights: ONNX file of YuNet on this machine, if there are no boxes.
        keep: The largest face of an image, or all.
        margin: How much a box grows on each side, as a share of its longer side.
        square: Make the box square about its middle, as far as the image goes.
        min_score: Faces of the detector below this score are left out.
        max_missing: Largest share of images without a face that is accepted.
        **common: Options of every verb.

    Returns:
        The table's file.

    Raises:
        UserError: If neither boxes nor weights are given or can be read, or too many images have no face.
    """
    of_file = _boxes_of_file(boxes, weights)
    table = read_rows(sources, common.get("root"))
    file = parquet_file(output)
    jobs = [
        (path, bits, min_score, weights or of_file.get(os.path.abspath(split(path)[0]), {}))
        for path, bits in zip(table["path"].to_pylist(), table["bits"].to_pylist(), strict=True)
    ]
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    with claimed(file), processes(len(jobs), "faces", common) as pool:
        for row, result in zip(table.to_pylist(), pool.map(_faces, jobs), strict=True):
            if isinstance(result, str):
                missing[row["path"]] = result
                continue
            size, in_image = result
            in_image = sorted(in_image, key=lambda box: -box[2] * box[3])[: 1 if keep == "largest" else None]
            rows += [boxed(row, grown(box, size, margin, square)) for box in in_image]
        list_missing(missing, len(table), file, "face", "max_missing", max_missing)
        boxes_found = pa.Table.from_pylist(rows, schema=pa.schema([*ROW_SCHEMA, ("set", pa.string())]))
        write_parquet(file, findable(boxes_found, file))
    print(f"{len(rows):,} faces of {len(table) - len(missing):,} images in {file}")
    return file


def _boxes_of_file(boxes: str | None, weights: str | None) -> Boxes:
    """Return the boxes of a file; none if there are weights.

    Raises:
        UserError: If not exactly one of both is given, or it cannot be used.
    """
    if (boxes is None) == (weights is None):
        raise UserError("faces come from --boxes (a file of boxes or landmarks) or --weights (YuNet as ONNX): give one")
    if boxes is not None:
        return read_boxes(Path(boxes).expanduser())
    if not _HAS_YUNET:
        raise UserError("faces are found by OpenCV: pip install 'dfl[faces]'")
    if not Path(weights or "").expanduser().is_file():
        raise UserError(f"no weights file {weights!r}: download YuNet's ONNX file (OpenCV Zoo) and give its path")
    return {}


def grown(box: Box, size: tuple[int, int], margin: float, square: bool) -> tuple[int, int, int, int]:
    """Return a box with its margin, in whole pixels inside an image of ``size`` (width, height).

    A square that reaches over an edge is moved inwards; one that is larger than the image becomes the image's own side.
    """
    x, y, w, h = box
    more = 2 * margin * max(w, h)
    sides = [min(max(w, h) + more, *size)] * 2 if square else [w + more, h + more]
    wide, high = (max(1, min(round(side), limit)) for side, limit in zip(sides, size, strict=True))
    left, top = round(x + w / 2 - wide / 2), round(y + h / 2 - high / 2)
    return max(0, min(left, size[0] - wide)), max(0, min(top, size[1] - high)), wide, high


def boxed(row: dict[str, Any], box: tuple[int, int, int, int]) -> dict[str, Any]:
    """Return the row of a box of an image; its mask is cut alike.

    Raises:
        UserError: If the mask is drawn as polygons, or of another size than its image.
    """
    if row["mask"].startswith("polygon:") or "resize" in row["mask_rule"].split(","):
        raise UserError(f"the mask of {row['path']} cannot be cut to a face (polygons, or of another size)")
    places = {}
    for name in ("path", "mask"):
        if row[name]:
            file, inside = split(row[name])
            if "xywh" in inside:
                raise UserError(f"{row[name]} is a box already: faces are looked for in whole images")
            places[name] = locate(file, **inside, xywh=",".join(map(str, box)))
    return row | places


def _faces(job: tuple[str, int, float, str | dict[int, list[Box]]]) -> tuple[tuple[int, int], list[Box]] | str:
    """Return the size of an image and its faces, by weights or from the boxes of its file; or why there is none."""
    path, bits, min_score, weights_or_boxes = job
    try:
        pixels = load_image(path, bits=bits)
        if isinstance(weights_or_boxes, str):
            in_image = _detected(pixels, weights_or_boxes, min_score)
        else:
            in_image = weights_or_boxes.get(_frame(path, weights_or_boxes), [])
    except DecodeError as error:
        return error.reason
    return ((pixels.shape[1], pixels.shape[0]), in_image) if in_image else "no face"


def _frame(path: str, boxes: dict[int, list[Box]]) -> int:
    """Return the frame with boxes that is nearest to a locator's; -1 for an image."""
    file, inside = split(path)
    if "frame" in inside:
        frame = int(inside["frame"])
    elif "at" in inside:
        i, parts = map(int, inside["at"].split("/"))
        frame = (2 * i + 1) * frame_count(file) // (2 * parts)
    else:
        return -1
    return min(boxes, key=lambda one: (abs(one - frame), one), default=-1)


def _detected(pixels: np.ndarray, weights: str, min_score: float) -> list[Box]:
    """Return the faces that YuNet finds in uint8 (H, W, 3)."""
    import cv2

    scale = min(1.0, DETECTOR_SIDE / max(pixels.shape[:2]))
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
    detector = _yunet(weights)
    detector.setScoreThreshold(min_score)
    detector.setInputSize((small.shape[1], small.shape[0]))
    detected = detector.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1]  # None or (n, 15)
    return [tuple(float(v) / scale for v in face[:4]) for face in (detected if detected is not None else ())]


@lru_cache(maxsize=1)
def _yunet(weights: str) -> Any:
    import cv2

    try:
        return cv2.FaceDetectorYN.create(str(Path(weights).expanduser()), "", (DETECTOR_SIDE, DETECTOR_SIDE))
    except cv2.error as error:
        raise UserError(f"{weights} is no YuNet that OpenCV {cv2.__version__} can read: {error.err}") from error


def read_boxes(file: Path) -> Boxes:
    """Read a file of boxes or landmarks.

    Raises:
        UserError: If it is not there, or has not the columns of a box.
    """
    if not file.is_file():
        raise UserError(f"no boxes in {file.absolute()}: there is no such file")
    try:
        table = pq.read_table(file) if file.suffix.lower() == ".parquet" else csv_files.read(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"no boxes in {file.absolute()}: {first_line(error)}") from error
    names = table.column_names
    if "path" not in names:
        raise UserError(f"{file} has no column path{near('path', names)}; it has {', '.join(names)}")
    csv_files.once(file, names, ("path", "frame", "landmarks", *CORNER_SIZE, *CORNERS))
    boxes: Boxes = {}
    frames = _numbers(table, "frame", file) if "frame" in names else [-1] * len(table)
    for path, frame, box in zip(table["path"].to_pylist(), frames, _boxes(table, file), strict=True):
        absolute = os.path.abspath(file.parent / path)
        boxes.setdefault(absolute, {}).setdefault(int(frame), []).append(box)
    return boxes


def _boxes(table: pa.Table, file: Path) -> Iterable[Box]:
    names = set(table.column_names)
    if names >= set(CORNER_SIZE):
        return list(zip(*(_numbers(table, n, file) for n in CORNER_SIZE), strict=True))
    if names >= set(CORNERS):
        corners = zip(*(_numbers(table, n, file) for n in CORNERS), strict=True)
        return [(a, b, c - a, d - b) for a, b, c, d in corners]
    if "landmarks" in names:
        points = [np.array(json.loads(text), np.float64) for text in table["landmarks"].to_pylist()]
        return [(*p.min(0).tolist(), *(p.max(0) - p.min(0)).tolist()) for p in points]
    raise UserError(
        f"{file} holds no boxes: it needs the columns x, y, w, h, or x0, y0, x1, y1, or landmarks; it has "
        f"{', '.join(sorted(names))}"
    )


def _numbers(table: pa.Table, name: str, file: Path) -> list[float]:
    """Return a column of numbers; -1 where it is empty."""
    try:
        return [-1.0 if value in (None, "") else float(value) for value in table[name].to_pylist()]
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: column {name!r} must hold numbers: {error}") from error
