"""How many bits 16-bit gray images hold whose files do not say so: microscopes, cameras and scanners store 10 or 12.

Divided by 65535 they come out black. One file does not tell 12 bits from a dark picture of 16; the set does. So a few
images of a set are looked at together, one warning says what follows, and a column ``bits`` of a table overrules it.
"""

import io
import warnings
from pathlib import PurePath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from dfl.data.decoding import PILLOWS, white_of
from dfl.data.locators import read_bytes, split
from dfl.data.mask_sets import RUN, sample, with_mask_rules
from dfl.data.sources.base import put
from dfl.errors import UserError

#: Formats that may hold 16-bit gray and not say how many bits are used.
SUFFIXES = (".png", ".tif", ".tiff")
BITS = (8, 10, 12, 14)


def largest_value(image: str) -> int:
    """Return the largest value of a 16-bit gray image that does not say how many bits it holds; -1 for any other."""
    try:
        data = read_bytes(image)
        with Image.open(io.BytesIO(data), formats=PILLOWS) as opened:
            if opened.mode.startswith("I;16") and white_of(opened, data) is None:
                return int(np.asarray(opened).max())
    except UserError:
        raise
    except Exception:  # Pillow raises nearly anything; it is counted as unreadable when its turn comes
        return -1
    return -1


def with_bits(table: pa.Table, where: str) -> pa.Table:
    """Return a table of rows with ``bits`` where its images need them; ``where`` names the set."""
    if not len(table) or pc.max(table["bits"]).as_py() > 0:  # the source says it
        return table
    paths = [table["path"][int(row)].as_py() for row in sample(np.arange(len(table)))]
    files = [path for path in paths if PurePath(split(path)[0]).suffix.lower() in SUFFIXES]
    files += [path for path in paths if {"row", "key"} & split(path)[1].keys()][:RUN]
    tops = [value for value in map(largest_value, files) if value >= 0]
    bits = next((bits for bits in BITS if tops and 0 < max(tops) < 1 << bits), None)
    if bits is None:
        return table
    warnings.warn(
        f"{where}: 16-bit images that do not say how many bits they hold; the largest value of {len(tops)} is "
        f"{max(tops)}, so white is {(1 << bits) - 1} ({bits} bits); a column bits in a table overrules it",
        stacklevel=2,
    )
    return put(table, "bits", pa.array(np.full(len(table), bits, np.int8)))


def with_defaults(table: pa.Table, where: str, masks: bool = True) -> pa.Table:
    """Return a table of rows with what its files leave open: bits, and where ``masks``, the rule of its masks."""
    return with_bits(with_mask_rules(table, where) if masks else table, where)
