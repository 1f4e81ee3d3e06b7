"""A table of images, CSV or Parquet, with named columns."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from dfl.data.locators import below
from dfl.data.sources.base import ROW_SCHEMA, SPLIT_NAMES, TIES, Source, label_of
from dfl.data.splits import assign
from dfl.errors import UserError

#: Other people's names for our columns, lower case, in order of preference.
ALIASES = {
    "path": ("path", "image_path", "img_path", "image", "img", "file", "filename", "file_name", "filepath"),
    "label": ("label", "class", "target", "y", "is_fake"),
    "split": ("split", "subset", "partition", "set"),
    "mask": ("mask", "mask_path", "gt"),
    "class_label": ("class_label",),
    "mask_rule": ("mask_rule",),
    "generator": ("generator", "model", "model_name", "method"),
    "family": ("family",),
    "method": ("method", "manipulation"),  # a lone column ``method`` names the generator
    "group": ("group", "intersection", "ismale_race"),
    "video": ("video", "video_id", "clip"),
    "frame": ("frame",),
    "identity": ("identity", "identity_id", "person", "subject"),
    "source": ("source", "original"),
    "compression": ("compression",),
    "caption": ("caption", "prompt"),
    "explanation": ("explanation",),
}


class Table(Source):
    """Rows of a CSV or Parquet file. Paths in it are relative to ``root``, or to the file's folder.

    Labels may be 0 and 1, or class names the field agrees on (real, fake, ...). Where a set counts the other way
    round, say ``label_of_fake: "0"``; then the one other value is real.

    Args:
        file: The CSV or Parquet file.
        root: Folder that relative paths start from; by default the file's own.
        columns: Column of the file by our name, for example ``{path: img, label: is_real}``; only where the
            name is not one of the usual ones.
        label_of_fake: The value that means fake. None: 1, or a name such as fake.
        fractions: Share of train, val and test where the file has no split column; None puts all images in
            every split.
        seed: Seed of the split by fraction.
        limit: At most so many images, in all splits or by split.
        limit_seed: Seed of that draw.
    """

    def __init__(
        self,
        file: str,
        root: str | None = None,
        columns: dict[str, str] | None = None,
        label_of_fake: str | int | None = None,
        fractions: dict[str, float] | None = None,
        seed: int = 0,
        limit: int | dict[str, int] | None = None,
        limit_seed: int = 0,
    ) -> None:
        super().__init__(limit, limit_seed)
        self.file = Path(file).expanduser()
        self.root = Path(root).expanduser() if root else self.file.parent
        self.columns, self.label_of_fake, self.fractions, self.seed = columns or {}, label_of_fake, fractions, seed

    def items(self, split: str) -> pa.Table:
        """Return the rows of a split."""
        table = self._normalised(self._read())
        if self.fractions is not None:
            column = pa.array(assign(table, self.fractions, self.seed, by=TIES))
            table = table.set_column(table.column_names.index("split"), "split", column)
        has_split = pc.any(pc.not_equal(table["split"], "")).as_py()
        return table.filter(pc.equal(table["split"], split)) if has_split else table

    def _read(self) -> pa.Table:
        if not self.file.is_file():
            raise self.missing("table", self.file)
        try:
            if self.file.suffix.lower() == ".parquet":
                return pa.parquet.read_table(self.file)
            return pa.csv.read_csv(self.file)
        except (pa.ArrowInvalid, OSError) as e:
            raise UserError(f"cannot read the table {self.file}: {str(e).splitlines()[0]}") from e

    def _normalised(self, raw: pa.Table) -> pa.Table:
        columns: dict[str, Any] = {}
        for name in ROW_SCHEMA.names:
            found = self._column(raw, name)
            if found is not None:
                columns[name] = raw.column(found)
            elif name in ("path", "label"):
                raise UserError(
                    f"{self.file} has no column for {name!r}: it has {', '.join(raw.column_names)}; "
                    f"name it with columns: {{{name}: ...}}"
                )
        text = {
            name: [cell(v) for v in column.to_pylist()]
            for name, column in columns.items()
            if pa.types.is_string(ROW_SCHEMA.field(name).type)
        }
        label = read_labels([cell(v) for v in columns["label"].to_pylist()], self.label_of_fake, self.file)
        out: dict[str, list[Any]] = {"label": label, "class_label": label, "frame": [-1] * len(raw)}
        for name in ("class_label", "frame"):
            if name in columns:
                out[name] = [-1 if v is None else int(v) for v in columns[name].to_pylist()]
        for name in ROW_SCHEMA.names:
            if name not in out:
                out[name] = text.get(name, [""] * len(raw))
        out["path"] = [below(self.root, p) for p in out["path"]]
        out["mask"] = [below(self.root, m) if m else "" for m in out["mask"]]
        out["split"] = [self._split(s) for s in out["split"]]
        return pa.table(out, schema=ROW_SCHEMA)

    def _column(self, raw: pa.Table, name: str) -> str | None:
        if name in self.columns:
            if self.columns[name] not in raw.column_names:
                raise UserError(
                    f"{self.file} has no column {self.columns[name]!r}: it has {', '.join(raw.column_names)}"
                )
            return self.columns[name]
        lower = {c.lower(): c for c in raw.column_names}
        found = next((lower[alias] for alias in ALIASES[name] if alias in lower), None)
        return None if name == "method" and found == self._column(raw, "generator") else found

    def _split(self, name: str) -> str:
        if name and name.lower() not in SPLIT_NAMES:
            raise UserError(f"{self.file}: unknown split {name!r}; there are {', '.join(SPLIT_NAMES)}")
        return SPLIT_NAMES.get(name.lower(), "")


def read_labels(values: list[str], label_of_fake: str | int | None, file: Path) -> list[int]:
    """Return 0 (real) or 1 (fake) for each value.

    Args:
        values: 0 and 1, or class names the field agrees on.
        label_of_fake: The value that means fake, where it is neither; then one other value is real.
        file: Where they stand.

    Raises:
        UserError: If the values do not say which is fake.
    """
    known = sorted(set(values))
    if label_of_fake is not None:
        fake = str(label_of_fake)
        others = [v for v in known if v != fake]
        if len(others) > 1:
            raise UserError(
                f"{file}: labels are {', '.join(known)}; with label_of_fake={fake} one other value must be left"
            )
        return [int(v == fake) for v in values]
    meaning = {v: {"0": 0, "1": 1}.get(v, label_of(v)) for v in known}
    if None in meaning.values():
        raise UserError(f"{file}: cannot tell real from fake by the labels {', '.join(known[:10])}; set label_of_fake")
    return [meaning[v] or 0 for v in values]


def cell(value: object) -> str:
    """Return a cell as text: whole floats as integers (a column with gaps is read as float), None as ''."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
