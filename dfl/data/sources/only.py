"""Part of another source: the fakes of some generators, its real images or not, or one split for all."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dfl.data.sources.base import Source
from dfl.errors import UserError, near


class Only(Source):
    """Rows of a source whose generator is asked for, and its real images.

    Works with every source that names its generators, so that one set serves as one domain for each of them.

    Args:
        source: What to choose from.
        generators: Generators to take, by the names in the source's rows; None takes all.
        reals: Whether real images are taken too.
        split: The split that is given whatever split is asked for, such as ``val`` to be tested on; None for none.

    Raises:
        UserError: On reading, if the source has no such generator in the split that is asked for.
    """

    def __init__(
        self,
        source: Source,
        generators: list[str] | None = None,
        reals: bool = True,
        split: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.source, self.generators, self.reals, self.split = source, generators, reals, split
        #: None where every split has all images, which the data module heeds.
        self.fractions = getattr(source, "fractions", {})
        self.user_named_fakes = source.user_named_fakes

    def prepare(self) -> None:
        self.source.prepare()

    def videos(self, table: pa.Table) -> list[str]:
        return self.source.videos(table)

    def items(self, split: str) -> pa.Table:
        table = self.source.load(self.split or split)
        fake = pc.equal(table["label"], 1)
        wanted = fake
        if self.generators is not None:
            names = table["generator"]
            there = sorted(set(pc.unique(names.filter(fake)).to_pylist()) - {""})
            for name in self.generators:
                if name not in there:
                    hint = near(name, there) or "; its rows name no generator at all"
                    raise UserError(f"{self.source!r} has no fakes of {name!r} in split {split!r}{hint}")
            wanted = pc.and_(fake, pc.is_in(names, pa.array(self.generators, pa.string())))
        return table.filter(pc.or_(wanted, pc.invert(fake)) if self.reals else wanted)

    def __repr__(self) -> str:
        names = "all" if self.generators is None else ", ".join(self.generators)
        return f"Only({self.source!r}, {names}{'' if self.reals else ', no real images'})"
