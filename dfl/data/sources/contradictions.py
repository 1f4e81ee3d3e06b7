"""Labels that contradict themselves: a number says fake where words about the same image say real.

Half of the public sets count 1 = real. A set that is read the wrong way round trains without any sign of it, so
whatever speaks of real and fake beside the labels is compared with them. A contradiction is an error, never a guess: it
says both readings, and the user says which holds. Agreement is silent. What counts, and from where on:

* **Words.** Names of classes, as a whole (``real``, ``1_fake``, ``deepfake``): never as a part of another word, so
  ``real-vs-fake``, ``realistic`` and ``Real-ESRGAN`` say nothing.
* **Columns of text.** One that holds nothing but names of classes, and whose own name is that of a label
  (``label_str``), is a second label: one row that differs is a contradiction. Any other (``audio_label``, ``source``, 0
  and 1 in ``is_real``) speaks only if it has both classes (or one, and names of generators for the other) and *all* of
  its rows differ. What a detector answered (``verdict``, ``pred``) is no label.
* **Folders of the paths**, below the folder that all paths share. Where one folder holds some of both classes (``real``
  beside ``fake``), one row that differs is a contradiction; elsewhere, and of words that mean other things too (``ai``,
  ``nature``), all must differ. A path with folders of both classes (``original/fake``) says nothing. The first or
  the last word of the files' names (``fake_001.png``, ``001-fake.png``) counts if all differ.
* **Numbers in another column of labels** (``target``, ``class``, ``Label``), 0 and 1, if all differ; and **what only
  fakes have**: a generator or a mask in all rows that are labelled real, and in no other.
* **The name of the label's column**: ``is_real`` says what 1 is.
* **Names of classes in the file's schema**, as Hugging Face writes them.

Of more than ``MOST`` rows, so many are looked at, evenly spread.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfl.data.sources.names import (
    FAKE_PARTS,
    NOTHING,
    REAL_PARTS,
    WEAK,
    class_of_word,
    meaning_of_one,
    parts,
    plain_label,
)
from dfl.errors import UserError

#: Rows that are looked at.
MOST = 1 << 14
#: A column with more different texts names no classes.
MOST_WORDS = 256
#: A column whose name has no other parts is one of labels.
_LABELS = {"label", "labels", "class", "target", "ground", "truth", "gt", "name", "str", "string"}
_LABELS |= {"text", "word", "image", "img", "binary", "is", "or", "vs"} | REAL_PARTS | FAKE_PARTS
#: Parts of the names of columns that hold what a detector answered.
_ANSWERS = {"verdict", "answer", "pred", "prediction", "predicted", "detected", "output", "score", "logit", "prob"}
#: Columns of numbers that are labels by their whole name, 1 for fake, and columns that only fakes have something in.
_NUMBERS = {"label", "labels", "class", "target", "y"}
_OF_FAKES = {"generator", "mask"}
#: How flags are written, lower case.
_FLAGS = {"1": 1, "yes": 1, "y": 1, "t": 1, "0": 0, "no": 0, "n": 0, "f": 0}
#: The first word of a file's name, and the last.
_FIRST = r"(?:^|/)(?P<word>[A-Za-z]+)[^A-Za-z/][^/]*\z"
_LAST = r"(?:^|[^A-Za-z])(?P<word>[A-Za-z]+)\.[^./]*\z"
CLASSES = ("real", "fake")


class Contradiction(UserError):
    """Labels, and words about the same images, that say the opposite of each other."""


@dataclass(frozen=True)
class Evidence:
    """What speaks against the labels."""

    what: str  # "column 'label_str'", "its folder"
    column: str  # its name, if it is one
    word: str  # what it says of the first of these rows
    label: int  # what that row's label says
    row: int  # of the table
    count: int  # rows that differ
    of: int  # rows that it speaks of
    all: bool  # whether it differs wherever it speaks


def find_contradiction(
    label: pa.ChunkedArray,
    paths: pa.ChunkedArray | None = None,
    words: Mapping[str, pa.ChunkedArray] | None = None,
    class_label: pa.ChunkedArray | None = None,
    numbers: bool = True,
) -> Evidence | None:
    """Return the first thing that speaks against labels; None if there is none.

    Args:
        label: 0 real, 1 fake, -1 unknown, (n,).
        paths: Of the images, text (n,).
        words: Other columns of text by name, (n,) each, as text or dictionaries of it.
        class_label: 0 real, more for fakes, -1 unknown, (n,).
        numbers: Whether 0 and 1 under a name such as ``target`` speak; not where the user chose another column.
    """
    n = len(label)
    if not n or pc.max(label).as_py() < 0:
        return None
    rows = np.arange(n) if n <= MOST else np.linspace(0, n - 1, MOST).astype(np.int64)
    labels = label.take(rows).to_numpy()
    # a column of generators or masks cannot stand in for that of labels
    readings = [
        (f"column {name!r}", "" if _is_of_fakes(name) else name, _column(name, one.take(rows), numbers))
        for name, one in (words or {}).items()
    ]
    if class_label is not None:
        readings.append(("class_label", "", _classes(class_label.take(rows).to_numpy())))
    if paths is not None:
        picked = paths.take(rows)
        names = [("the name of its file", "", _names(picked, word)) for word in (_FIRST, _LAST)]
        readings += [("its folder", "", _folders(picked)), *names]
    return next((evidence for one in readings if (evidence := _opposed(labels, rows, *one))), None)


def contradiction(where: str, label: str, evidence: Evidence, path: str, ways: str) -> Contradiction:
    """Return the error for what was found.

    Args:
        where: The source, or the file.
        label: What the labels are called.
        evidence: What speaks against them.
        path: Of the image in its row.
        ways: Out of it.
    """
    return Contradiction(
        f"{where}: labels contradict themselves: {label} makes {path} {CLASSES[evidence.label]}, and {evidence.what} "
        f"says {evidence.word!r} ({evidence.count:,} of {evidence.of:,} images); {ways}"
    )


@dataclass(frozen=True)
class _Reading:
    value: np.ndarray  # int8 (n,): 0, 1, -1 for nothing
    strict: np.ndarray  # bool (n,): one row that differs is enough
    words: np.ndarray  # (n,) what is read


def _opposed(label: np.ndarray, rows: np.ndarray, what: str, column: str, reading: _Reading) -> Evidence | None:
    comparable = (reading.value >= 0) & (label >= 0)
    differ = comparable & (reading.value != label)
    both = len(np.unique(reading.value[comparable])) == 2
    sure = differ & reading.strict
    count, of = int(differ.sum()), int(comparable.sum())
    if not sure.any() and not (both and count == of):
        return None
    first = int(np.flatnonzero(sure if sure.any() else differ)[0])
    word, row = reading.words[first], int(rows[first])
    return Evidence(what, column, word, int(label[first]), row, count, of, count == of)


def _classes(class_label: np.ndarray) -> _Reading:
    """Read numbers of classes, where real is 0."""
    value = np.minimum(class_label, 1).astype(np.int8)
    return _Reading(value, np.ones(len(value), bool), _words(CLASSES, value))


def _column(name: str, column: pa.ChunkedArray, numbers: bool) -> _Reading:
    """Read a column of words, of 0 and 1 under a name that says what they are, or of what only fakes have."""
    codes, values = _encoded(column)
    plain = [plain_label(value).lower() for value in values]
    if len(values) > MOST_WORDS and not _is_of_fakes(name):
        plain, values, codes = [""], [""], np.zeros(len(codes), np.int64)
    one = meaning_of_one(name)
    if numbers and name.strip().lower() in _NUMBERS and {*plain} <= {"", *_FLAGS}:
        one = 1
    flags = {} if one is None else {flag: one if means else 1 - one for flag, means in _FLAGS.items()}
    meaning = [flags.get(word, class_of_word(word)) if word else -1 for word in plain]
    if _is_of_fakes(name) and set(meaning) <= {None, -1}:
        meaning = [int(word not in NOTHING) for word in plain]
        values = [value or "nothing" for value in values]
    classes = {m for m in meaning if m in (0, 1)}
    whole = None not in meaning and bool(classes)
    rest = 1 - classes.pop() if len(classes) == 1 else -1  # real images, and names of generators
    read = np.array([rest if m is None else m for m in meaning], np.int8)
    label = whole and one is None and parts(name) <= _LABELS
    return _Reading(
        read[codes] if len(values) else np.full(len(codes), -1, np.int8),
        np.full(len(codes), label),
        _words(values, codes),
    )


def _folders(paths: pa.ChunkedArray) -> _Reading:
    """Read the folders of paths that differ."""
    codes, folders = _encoded(pc.replace_substring_regex(paths, r"(^|/)[^/]*\z", ""))
    split = [folder.split("/") for folder in folders]
    shared = len(os.path.commonprefix(split))  # noqa: RUF071  (lists, not texts)
    value, words, parent = [], [], []
    classes: dict[str, set[int]] = {}
    for one in split:
        labelled = [(i, label) for i in range(shared, len(one)) if (label := class_of_word(one[i])) is not None]
        at, label = labelled[-1] if len({label for _, label in labelled}) == 1 else (0, -1)
        value.append(label)
        words.append(one[at])
        parent.append("/".join(one[:at]) if label >= 0 else None)
        classes.setdefault(str(parent[-1]), set()).add(label)
    strict = np.array([one is not None and len(classes[one]) == 2 for one in parent], bool)
    strict &= np.array([word.lower() not in WEAK for word in words], bool)
    return _Reading(np.array(value, np.int8)[codes], strict[codes], _words(words, codes))


def _names(paths: pa.ChunkedArray, pattern: str) -> _Reading:
    """Read one word of files' names."""
    found = pc.extract_regex(paths, pattern)
    codes, words = _encoded(pc.fill_null(pc.struct_field(found, "word"), ""))
    value = np.array([-1 if (label := class_of_word(word)) is None else label for word in words], np.int8)
    return _Reading(value[codes], np.zeros(len(codes), bool), _words(words, codes))


def _words(words: Sequence[str], codes: np.ndarray) -> np.ndarray:
    """Return the word of each code (n,)."""
    return np.array([*words, ""], object)[codes]


def _encoded(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Return the code of each row, int (n,), and the different texts."""
    encoded = pc.fill_null(column.cast(pa.string()), "").combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()


def _is_of_fakes(name: str) -> bool:
    return name.strip().lower() in _OF_FAKES


def may_be_evidence(name: str, kind: pa.DataType) -> bool:
    """Whether a column of this name and type may say what is real: text, or 0 and 1 under a name such as is_real."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    number = pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind)
    flags = number and (meaning_of_one(name) is not None or name.strip().lower() in _NUMBERS)
    return (text or flags) and not parts(name) & _ANSWERS


def evidence_columns(table: pa.Table, own: Collection[str]) -> dict[str, pa.ChunkedArray]:
    """Return the columns of a table that may say what is real, but for some that are read otherwise.

    Beside a detector's scores or verdicts, ``class`` is its answer too.
    """
    if any(parts(name) & _ANSWERS for name in table.column_names):
        own = {*own, *(name for name in table.column_names if name.strip().lower() == "class")}
    fields = zip(table.schema, table.columns, strict=True)
    return {
        field.name: column
        for field, column in fields
        if field.name not in own and may_be_evidence(field.name, field.type)
    }
