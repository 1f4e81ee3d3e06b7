"""Values of a spec, checked: names of files, numbers, and what others published."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfl.errors import UserError, near

_APART = str.maketrans({"/": "_", "\\": "_", ".": "_", "@": "_"})  # what separates names in files and loaders


def safe(name: Any) -> str:
    """Return a name without what separates names in files, logs and flags."""
    return str(name).translate(_APART)


def side(alike: Any, file: Path) -> int:
    """Return the shorter side in pixels of images re-encoded alike; 0 for none."""
    if type(alike) is int and alike < 8:
        raise UserError(f"{file}: alike is {alike}: true, false, or the shorter side of the images in pixels")
    return 256 * alike if isinstance(alike, bool) else int(alike)


def years(by_name: dict[Any, Any], file: Path) -> dict[str, int]:
    """Return the year of each generator."""
    if odd := [name for name, year in by_name.items() if type(year) is not int]:
        raise UserError(f"{file}: years: that of {odd[0]} is a whole number, not {by_name[odd[0]]!r}")
    return {str(name): year for name, year in by_name.items()}


def resamples(number: Any, file: Path) -> int:
    """Return the number of resamples of the bootstrap."""
    if type(number) is not int or number < 100:
        raise UserError(f"{file}: resamples is {number!r}: an interval needs at least 100")
    return number


def reference(content: dict[str, Any], file: Path, domains: Sequence[str]) -> list[dict[str, Any]]:
    """Return published numbers; each must say whose they are, of a domain or a named mean that is there.

    Raises:
        UserError: For a number that lacks something, or that is no share: all metrics are between 0 and 1.
    """
    for one in (rows := content.get("reference") or []):
        lacks = [key for key in ("method", "domain", "metric", "value", "source") if key not in (one or {})]
        if lacks:
            raise UserError(f"{file}: a reference number lacks {', '.join(lacks)}: {one!r}")
        name, value = safe(one["domain"]), one["value"]
        if type(value) not in (int, float):
            raise UserError(f"{file}: the value of a reference is a number, not {value!r}")
        whose = f"{file}: the reference {one['method']}, {one['metric']}"
        if not 0 <= value <= 1:
            raise UserError(f"{whose} is {value:g}: metrics are shares from 0 to 1; 98.5 % is 0.985")
        known = [*domains, *map(safe, content.get("means") or {})]
        if name not in known:
            raise UserError(f"{whose} names the domain {one['domain']!r}{near(name, known)}")
    return [{"protocol": "", **one, "domain": safe(one["domain"])} for one in rows]
