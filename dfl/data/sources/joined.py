"""Several sources as one, such as the fakes of one set beside the real images of another."""

import pyarrow as pa

from dfl.data.sources.base import ROW_SCHEMA, Source
from dfl.errors import UserError


class Joined(Source):
    """All rows of several sources, in their order; an image that several of them have is there once.

    Args:
        sources: What to join.

    Raises:
        UserError: On reading, if sources disagree on the label of an image, or none is named.
    """

    #: The sources inside have looked whether labels contradict themselves.
    user_named_fakes = True

    def __init__(self, sources: list[Source]) -> None:
        super().__init__()
        if not sources:
            raise UserError("Joined: sources names none")
        self.sources = sources
        #: None where every split of one has all images, which the data module heeds.
        self.fractions: dict[str, float] | None = (
            None if any(getattr(one, "fractions", {}) is None for one in sources) else {}
        )

    def prepare(self) -> None:
        for one in self.sources:
            one.prepare()

    def items(self, split: str) -> pa.Table:
        table = pa.concat_tables([one.load(split).select(ROW_SCHEMA.names) for one in self.sources])
        label, kept = dict[str, int](), []
        for row, (path, own) in enumerate(zip(table["path"].to_pylist(), table["label"].to_pylist(), strict=True)):
            if path not in label:
                label[path] = own
                kept.append(row)
            elif label[path] != own:
                raise UserError(f"{self!r}: {path} is real in one source and fake in another")
        return table.take(pa.array(kept)) if len(kept) < len(table) else table

    def __repr__(self) -> str:
        return f"Joined({', '.join(map(repr, self.sources))})"
