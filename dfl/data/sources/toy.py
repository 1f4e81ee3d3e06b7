"""The toy data set of the demo, made on first use."""

from typing import Any

from dfl.data import csv_files
from dfl.data.sources.base import WithSplits
from dfl.data.toy import DOMAINS, check_group, make
from dfl.errors import UserError, near


class Toy(WithSplits):
    """One domain of the toy set.

    Args:
        root: Folder of the set; it is made there if it is not.
        domain: ``same`` (the only one with train and val), ``unseen_generator``, ``unseen_family`` or ``other_camera``.
        n: Pictures of the whole set.
        size: Their width and height in pixels.
        seed: Seed of the set.
        unfair_group: Training is hard on this group, such as ``plum`` or ``plum-glasses``: docs/fairness.md. The set
            then has the domain ``same`` alone, and wants a root of its own.
        aligned: Every photo is there with its forgery by each generator; wants a root of its own too.
    """

    def __init__(
        self,
        root: str = "data/toy",
        domain: str = "same",
        n: int = 4000,
        size: int = 128,
        seed: int = 0,
        unfair_group: str | None = None,
        aligned: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        if domain not in DOMAINS:
            raise UserError(f"the toy set has no domain {domain!r}{near(domain, list(DOMAINS))}")
        if unfair_group is not None:
            check_group(unfair_group)
            if domain != "same":
                raise UserError(f"the toy set with an unfair_group has the domain 'same' alone, not {domain!r}")
        self.domain, self.n, self.size, self.seed = domain, n, size, seed
        self.unfair_group, self.aligned = unfair_group, aligned

    def prepare(self) -> None:
        make(self.root, self.n, self.size, self.seed, unfair_group=self.unfair_group, aligned=self.aligned)

    def rows(self, split: str) -> list[dict[str, Any]]:
        file = self.root / "table.csv"
        if not file.is_file():
            raise self.missing("toy set (dfl toy makes it)", self.root)
        listed = csv_files.read(file).to_pylist()
        rows = [row for row in listed if (row["domain"], row["split"]) == (self.domain, split)]
        for row in rows:
            row |= {name: int(row[name]) for name in ("label", "class_label")}
            row |= {name: str(self.root / row[name]) for name in ("path", "mask") if row[name]}
        return rows
