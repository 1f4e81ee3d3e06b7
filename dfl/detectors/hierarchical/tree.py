"""Families and their generators: from a file, from the names in the data, and the likeliest path among them."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from dfl.errors import UserError
from dfl.runs.plain import Misfit, Sentences, fit, shown

#: Generators by family.
Families = dict[str, list[str]]
#: Logarithm of the probability of a path that hard routing does not take: 0 in float32, and finite in means of views.
NEVER = -100.0


class OfFile:
    """What a checkpoint may give as families: at most 64 names, each with a list of names."""

    @staticmethod
    def from_file(value: Any) -> Families | None:
        """Return the families that a file gives.

        Raises:
            Misfit: If they are none.
        """
        if value is None:
            return None
        if not isinstance(value, Mapping) or not 0 < len(value) <= 64:
            raise Misfit(f"is {shown(value)}, and it must be a mapping of 1 to 64 families to lists of generators")
        return {
            family: fit(names, Sentences)
            for family, names in zip(fit([*value], Sentences), value.values(), strict=True)
        }


def families_of(found: Mapping[tuple[str, str], int]) -> Families:
    """Return generators by family, sorted, of counts by both names."""
    families: Families = {}
    for family, generator in sorted(found):
        if family and generator:
            families.setdefault(family, []).append(generator)
    if not families:
        raise UserError(
            "no training fake has both a family and a generator, so there is no tree to learn: fill both columns of "
            "the table, or name model.families and fill the column generator"
        )
    return families


def check(families: Families) -> None:
    """Raise a UserError for a family without a generator, and for a name that stands twice."""
    if empty := [name for name, generators in families.items() if not generators]:
        raise UserError(f"model.families: {empty[0]!r} has no generator; name one or more, or leave the family out")
    for what, names in (("family", list(families)), ("generator", [*chain.from_iterable(families.values())])):
        if twice := [name for name in dict.fromkeys(names) if (["real", *names]).count(name) > 1]:
            raise UserError(
                f"model.families: the {what} {twice[0]!r} is there twice, or is what real images are called; each name "
                "must be there once: rename it in the table (column generator), or list it under one family"
            )


def likeliest(log_prob: Tensor) -> Tensor:
    """Return 0 for the largest of each row (N, K) and `NEVER` for the others."""
    best = log_prob.argmax(1, keepdim=True)
    return torch.full_like(log_prob, NEVER).scatter(1, best, 0.0)
