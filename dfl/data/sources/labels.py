"""What the labels of a list mean: 0 and 1, or names of classes, in its cells or in its schema."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from dfl.data.sources.contradictions import Contradiction
from dfl.data.sources.names import label_of, meaning_of_one, plain_label
from dfl.errors import UserError

#: The value that means fake, or several of them; None where values say it themselves.
Fakes = str | int | list[str] | None


def class_names(schema: pa.Schema, column: str) -> list[str] | None:
    """Return the names behind the integers of a column, where a schema has them as Hugging Face writes them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def check_names(file: Path, names: Sequence[str]) -> None:
    """Hold the names of a set's classes against what it is known for: 0 real, all others fake.

    Raises:
        Contradiction: If they say the opposite.
    """
    for number, name in enumerate(names):
        if label_of(name) not in (None, min(number, 1)):
            raise Contradiction(
                f"{file}: labels contradict themselves: this set has 0 for real and 1 for fake, and the file's schema "
                f"calls {number} {name!r}; get the set again, or read it with Table and label_of_fake"
            )


def label_meaning(
    values: set[str], label_of_fake: Fakes, file: Path, column: str = "", names: Sequence[str] | None = None
) -> dict[str, int]:
    """Return 0 (real) or 1 (fake) by value.

    Args:
        values: 0 and 1, true and false, or class names the field agrees on.
        label_of_fake: The value that means fake, or a list of them, where they are neither; one other value is real.
        file: Where they stand.
        column: The name of theirs, which must not say the opposite of 0 and 1.
        names: What 0, 1, ... are called in the file's schema.

    Raises:
        UserError: If the values do not say which is fake.
        Contradiction: If 0 and 1 would be read as the opposite of what the column's name or the schema says.
    """
    cells = sorted(values)
    number = {v: plain_label(v) for v in cells}
    word = {v: names[int(n)] if names and n.isdecimal() and int(n) < len(names) else n for v, n in number.items()}
    if label_of_fake is not None:
        values_of_fake = label_of_fake if isinstance(label_of_fake, list) else [label_of_fake]
        fakes = {plain_label(str(one)) for one in values_of_fake}
        is_fake = {v: int(bool(fakes & {number[v], word[v]})) for v in cells}
        others = {word[v] for v in cells if not is_fake[v]}
        if len(others) > 1 and any(label_of(one) is None for one in others):
            raise UserError(
                f"{file}: labels are {', '.join(word[v] for v in cells)}; with label_of_fake={label_of_fake} one other "
                "value must be left"
            )
        return {v: 1 if is_fake[v] else 0 if len(others) == 1 else int(label_of(word[v]) or 0) for v in cells}
    by_number = {v: {"0": 0, "1": 1}.get(number[v]) for v in cells}
    by_word = {v: label_of(word[v]) for v in cells}
    ways = "set label_of_fake: 0 if so, or label_of_fake: 1 if 1 does mean fake"
    if all(n is not None for n in by_number.values()):
        wrong = next((v for v in cells if by_word[v] not in (None, by_number[v])), None)
        if wrong is not None:
            reason = f"the file's schema calls {wrong} {word[wrong]!r}"
        elif cells and meaning_of_one(column) == 0:
            reason = f"the name of the column {column!r} says that 1 is real"
        else:
            return {v: int(n or 0) for v, n in by_number.items()}
        raise Contradiction(f"{file}: labels contradict themselves: 0 would be real and 1 fake, and {reason}; {ways}")
    sure = {
        v: label for v in cells if (label := by_number[v] if by_word[v] is None and not names else by_word[v]) in (0, 1)
    }
    if len(sure) < len(cells):
        shown = ", ".join([word[v] or "''" for v in cells][:10])
        raise UserError(f"{file}: cannot tell real from fake by the labels {shown}; set label_of_fake")
    return sure


def real_and_fake_value(meaning: Mapping[str, int]) -> tuple[str, str]:
    """Return a value that means real and one that means fake; of one class, 0 or 1 for the other."""
    ends = [sorted(v for v, label in meaning.items() if label == one) or [str(one)] for one in (0, 1)]
    return ends[0][0], ends[1][0]


def cell(value: object) -> str:
    """Return a cell as text: whole floats as integers (a column with gaps is read as float), None as ''."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
