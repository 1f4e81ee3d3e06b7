"""Fakes of real images, partial ones with true masks: ``dfl forge SOURCE... --makers splice -o FOLDER``.

A *maker* changes a region of a picture (makers.py); a *shape* is where that region comes from (shapes.py); what makes
files of it, resumable, is make.py. Generators that are models come by ``--models FILE`` (models/, generate.py).
"""

from typing import Any

from dfl.cli.verbs import call
from dfl.tools.forge.make import forge
from dfl.tools.forge.makers import MAKERS, Maker, Scene

__all__ = ["MAKERS", "Maker", "Scene", "forge", "main"]


def main(argv: list[str]) -> Any:
    """Make a set, from the words after ``dfl forge``; return its table.

    Raises:
        UserError: For whatever the user can mend.
    """
    first = ("sources", "+", "Data configs, folders, tables.")
    return call(forge, argv or ["--help"], "dfl forge", (__doc__ or "").strip(), first)
