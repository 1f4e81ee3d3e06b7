"""HEIC, the pictures of iPhones, by a package that is asked for only where a file needs it."""

from typing import BinaryIO

from lightning_utilities.core.imports import RequirementCache
from PIL import Image

HAS_HEIF = RequirementCache("pillow-heif>=1.1")
NO_HEIF = "HEIC, which the package pillow-heif reads: pip install 'dfl[heif]'"


def open_heif(file: BinaryIO) -> Image.Image:
    """Return an image of which only the header was read, upright whatever its EXIF says.

    Raises:
        ValueError: If the package is not there, or the header is damaged.
    """
    if not HAS_HEIF:
        raise ValueError(NO_HEIF)
    import pillow_heif  # an extra

    if "HEIF" not in Image.OPEN:
        pillow_heif.register_heif_opener(decode_threads=1)  # the loader has processes of its own
    try:
        file.seek(0)
        return Image.open(file, formats=("HEIF",))
    except Exception as error:  # its words name an address in memory
        raise ValueError("HEIC with a damaged header") from error
