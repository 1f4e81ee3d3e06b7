"""Which files are images, in one table; and the warning about those that were left out.

A file is an image by its suffix, whatever its case. A file without a suffix (a download, a cache) is one if its first
bytes are those of a format of the table. HEIC counts as an image whether or not the package that reads it is installed,
so that a set does not change with what is installed: without it, its files cannot be read, and the reason names it.
Names that begin with a dot are never looked at: macOS writes such a twin beside every file.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: Suffixes by Pillow's name of a format, and the pattern with which a file of it begins.
FORMATS: dict[str, tuple[str, bytes]] = {
    "JPEG": (".jpg .jpeg .jpe .jfif", rb"\xff\xd8\xff"),
    "PNG": (".png .apng", rb"\x89PNG\r\n\x1a\n"),
    "WEBP": (".webp", rb"RIFF....WEBP"),
    "GIF": (".gif", rb"GIF8[79]a"),
    "BMP": (".bmp .dib", rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    "TIFF": (".tif .tiff", rb"II[*+]\0|MM\0[*+]"),
    "PPM": (".ppm .pgm .pbm .pnm", rb"P[1-6]\s+[\d#]"),
    "JPEG2000": (".jp2 .j2k .jpx .jpf .j2c", rb"\0\0\0\x0cjP {2}\r\n\x87\n|\xff\x4f\xff\x51"),
    "AVIF": (".avif", rb".{4}ftypavi[fs]"),
    "HEIF": (".heic .heif .hif", rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)"),
}
#: What to do with files that hold pictures, and that we do not read.
ADVICE: dict[str, str] = {
    "video: extract frames, or name them: FILE#frame=0, FILE#at=0/8, or predict --frames 16": (
        ".mp4 .avi .mov .mkv .webm .m4v .mpg .mpeg .wmv .flv .3gp .mts"
    ),
    "archive: unpack it": ".zip .tar .tgz .gz .bz2 .xz .7z .rar .zst",
    "raw of a camera: develop it to PNG or TIFF": ".dng .nef .cr2 .cr3 .arw .orf .rw2 .raf",
    "save it as PNG": ".psd .tga .ico .icns .jxl .svg .pdf .eps .exr .hdr .dds .qoi .pfm .xcf",
}
_ADVICE_BY_SUFFIX = {suffix: advice for advice, suffixes in ADVICE.items() for suffix in suffixes.split()}
IMAGE_SUFFIXES = frozenset(suffix for suffixes, _ in FORMATS.values() for suffix in suffixes.split())
VIDEO_SUFFIXES = frozenset(suffix for suffix, advice in _ADVICE_BY_SUFFIX.items() if advice.startswith("video"))
#: Kinds of files that are named in one line, and names of each.
MOST_KINDS, MOST_NAMES = 6, 3
#: Bytes that tell the kind of a file.
START = 32


def kind_of(start: bytes) -> str:
    """Return Pillow's name of the format that a file of the table begins with; '' for none."""
    return next((name for name, (_, head) in FORMATS.items() if re.match(head, start, re.DOTALL)), "")


def is_image(file: str, suffixes: Collection[str] = IMAGE_SUFFIXES) -> bool:
    """Tell whether a file is one of ours by its suffix; where images are asked for, also by its first bytes."""
    suffix = os.path.splitext(file)[1].lower()
    if suffix or suffixes is not IMAGE_SUFFIXES:
        return suffix in suffixes
    return bool(kind_of(_start_of(file)))


def _start_of(file: str) -> bytes:
    """Return the first bytes of a regular file; none of what cannot be read, or is none."""
    try:
        if not os.path.isfile(file):  # nobody waits for a pipe's writer
            return b""
        with open(file, "rb") as opened:
            return opened.read(START)
    except (OSError, ValueError):
        return b""


class LeftOut:
    """Files that were not taken, counted by folder and suffix. Two walks over one folder count its files once."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}  # by folder

    def note(self, folder: str, names: Iterable[str]) -> None:
        """Count the files of one folder that were not taken; an older count of it is replaced."""
        if left := sorted(names):
            self._names[folder] = left

    def update(self, other: "LeftOut") -> None:
        """Take over what another one counted."""
        self._names |= other._names

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Count what the walks within leave out; who listens around it hears of it too."""
        outer = _listener.get()
        token = _listener.set(self)
        try:
            yield
        finally:
            _listener.reset(token)
            if outer is not None:
                outer.update(self)

    def __len__(self) -> int:
        return sum(map(len, self._names.values()))

    def __str__(self) -> str:
        """Say how many there are, of which kinds, and name a few; '' if there are none."""
        if not len(self):
            return ""
        by_suffix: dict[str, list[str]] = {}
        for path in (os.path.join(folder, name) for folder, names in sorted(self._names.items()) for name in names):
            by_suffix.setdefault("/" if path.endswith("/") else os.path.splitext(path)[1].lower(), []).append(path)
        kinds = sorted(by_suffix.items(), key=lambda kind: (not advice_on(f"x{kind[0]}"), -len(kind[1]), kind[0]))
        parts = [_in_words(suffix, len(paths), paths[:MOST_NAMES]) for suffix, paths in kinds[:MOST_KINDS]]
        if rest := sum(len(paths) for _, paths in kinds[MOST_KINDS:]):
            parts.append(f"{rest:,} with other suffixes")
        n = len(self)
        return f"{n:,} file{'s were' if n > 1 else ' was'} left out: {'; '.join(parts)}"


_listener: ContextVar[LeftOut | None] = ContextVar("left_out", default=None)


def _in_words(suffix: str, n: int, examples: list[str]) -> str:
    """Return a part of the line: how many, what they are, some names, and what to do."""
    kind = {"": "without suffix", "/": f"folder{'s' * (n > 1)}"}.get(suffix, suffix)
    names = ", ".join(examples).encode("utf-8", "replace").decode() + (", ..." if n > len(examples) else "")
    return f"{n:,} {kind} ({'; '.join(filter(None, (names, advice_on(examples[0]))))})"


def taken(folder: str, names: Iterable[str], suffixes: Collection[str] = IMAGE_SUFFIXES) -> list[str]:
    """Return the names of files in a folder that are images, or have other suffixes; who listens hears of the rest.

    Args:
        folder: Where they are.
        names: Names of files; those that begin with a dot are passed over.
        suffixes: Suffixes to take.
    """
    visible = [name for name in names if not name.startswith(".")]
    images = [name for name in visible if is_image(os.path.join(folder, name), suffixes)]
    leave_out(folder, set(visible).difference(images))
    return images


def advice_on(file: str) -> str:
    """Return what to do with a file that holds pictures, and that we do not read; '' for any other."""
    return _ADVICE_BY_SUFFIX.get(os.path.splitext(file)[1].lower(), "")


def leave_out(folder: str, names: Iterable[str]) -> None:
    """Tell who listens of files, or of folders (``name/``), that are not taken."""
    listener = _listener.get()
    if listener is not None:
        listener.note(folder, names)
