"""Where a method comes from, for ``dfl list``, which reads it in the source text and so takes literal values only."""

from typing import NamedTuple


class About(NamedTuple):
    """What groups a method with others, and names its paper: ``about = About("frequency", "Frank et al.", 2020)``."""

    #: One of ``dfl.cli.configs.IDEAS``.
    idea: str
    #: Its authors; empty where there is no paper.
    paper: str = ""
    year: int | None = None
