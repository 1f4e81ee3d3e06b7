"""Another source, with every image degraded the same way: compressed, blurred, cut, ..."""

import json
from typing import Any

import pyarrow as pa

from dfl.data.chains import chain as named
from dfl.data.sources.base import DEGRADATION, Source, with_degradation
from dfl.errors import UserError


class Degraded(Source):
    """All rows of a source, real and fake, whose images and masks are degraded right after they are decoded.

    Files stay as they are. Every worker, rank and epoch sees the same pixels. Around another `Degraded`, this one comes
    second, and draws for both.

    Args:
        source: What to degrade.
        chain: A variant of ``dfl/data/chains.py``, such as ``jpeg_75`` or ``alike``, or a list of steps as in
            ``augment``; a step that names no ``p`` is always taken.
        seed: Seed of what the steps draw, such as noise.

    Raises:
        UserError: If there is no such variant or step.
    """

    #: The source inside has looked whether labels contradict themselves.
    user_named_fakes = True

    def __init__(self, source: Source, chain: str | list[dict[str, Any]], seed: int = 0) -> None:
        super().__init__()
        if seed < 0:
            raise UserError(f"Degraded: seed is {seed}: it must be at least 0")
        self.source, self.chain, self.seed = source, chain, seed
        self.steps = named(chain) if isinstance(chain, str) else [_certain(step) for step in chain]
        from dfl.data.degrading import checked  # here: lists of rows are read without albumentations and torch

        checked(self.steps)
        #: None where every split has all images, which the data module heeds.
        self.fractions = getattr(source, "fractions", {})

    def prepare(self) -> None:
        self.source.prepare()

    def videos(self, table: pa.Table) -> list[str]:
        return self.source.videos(table)

    def items(self, split: str) -> pa.Table:
        table = self.source.load(split)
        if DEGRADATION.name not in table.column_names:
            return with_degradation(table, self._cell([]))
        column = table[DEGRADATION.name].unify_dictionaries().combine_chunks()
        before = [json.loads(cell)["steps"] if cell else [] for cell in column.dictionary.to_pylist()]
        cells = pa.array(map(self._cell, before), pa.string())
        return with_degradation(table, pa.DictionaryArray.from_arrays(column.indices, cells))

    def _cell(self, before: list[dict[str, Any]]) -> str:
        return json.dumps({"seed": self.seed, "steps": [*before, *self.steps]}, sort_keys=True)

    def __repr__(self) -> str:
        return f"Degraded({self.source!r}, {self.chain if isinstance(self.chain, str) else json.dumps(self.steps)})"


def _certain(step: Any) -> Any:
    """Return a step that is always taken, unless it says how often."""
    return {"p": 1.0, **step} if isinstance(step, dict) and "p" not in (step.get("init_args") or {}) else step
