"""Images of a bucket, for ``predict --ray``: which there are, and copies of those that a worker scores next.

Nothing else in `dfl` follows an address. This one is typed by the user, and a list that lies in a bucket leads to
images of that bucket alone. Buckets are opened by pyarrow's file systems, as Ray's own readers open them, with the
keys of access that each worker's environment has.
"""

import posixpath
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from dfl.data import Source
from dfl.data.decoding import FILE_LIMIT
from dfl.data.formats import IMAGE_SUFFIXES, leave_out
from dfl.data.sources.base import is_url, to_table
from dfl.data.sources.paths import PathList, lines_of
from dfl.errors import NothingDone, UserError, first_line

#: Suffixes of lists.
LISTS = (".csv", ".parquet", ".txt")
#: Images that are copied at once.
THREADS = 16


class Bucket(Source):
    """Images behind an address. The path of a row is an address too, without keys of access.

    Args:
        address: A folder (``s3://bucket/folder``), searched with all that lies below it; an image; or a list of
            images, ``.csv`` or ``.parquet`` with a column ``path`` or ``.txt``, whose paths are relative to its folder
            or addresses in the same bucket. Whatever pyarrow opens: ``s3``, ``gs``, ``abfs``, ``hdfs``, ``file``, with
            its options (``s3://bucket/folder?region=eu-west-1``). A question mark in a name is written %3F.
    """

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = quote(address, safe="%:/?&=@+,~[]")
        url = urlsplit(self.address)
        who, at, host = url.netloc.rpartition("@")  # keys of access, but for Azure, where it is the container
        self.bucket = f"{url.scheme}://{who + at if url.scheme.startswith('abfs') else ''}{host}"
        self.where = self.bucket + unquote(url.path).rstrip("/")

    def __repr__(self) -> str:
        return f"Bucket({self.where})"

    def items(self, split: str) -> pa.Table:
        """Return a row for each image, those of a folder sorted; the split does not matter.

        Raises:
            UserError: If the address does not open, or a list names something outside of its bucket.
            NothingDone: If there is no image.
        """
        try:
            listed = self.where.lower().endswith(LISTS)
            found = list(self._listed() if listed else ((path, "") for path in self._searched()))
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{self.where} does not open: {first_line(error)}") from error
        if not found:
            raise NothingDone("; ".join(filter(None, (f"no image in {self.where}", str(self.left_out)))))
        return to_table({"path": path, "label": -1, "caption": caption} for path, caption in found)

    def copies(self, addresses: Sequence[str], folder: Path) -> list[str]:
        """Copy images into a folder; return their paths there, of those too that the bucket does not have.

        Raises:
            UserError: If the bucket does not give them.
        """
        places = [folder / f"{i:06d}{posixpath.splitext(one)[1]}" for i, one in enumerate(addresses)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._copy, addresses, places))
        return list(map(str, places))

    def _stream(self, address: str) -> pa.NativeFile:
        system, root = _opened(self.address)
        return system.open_input_stream(root + address.removeprefix(self.bucket), compression=None)

    def _copy(self, address: str, place: Path) -> None:
        try:
            with self._stream(address) as source:
                place.write_bytes(source.read(FILE_LIMIT + 1))  # what is longer is no image of ours
        except FileNotFoundError:
            return
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{address} cannot be read: {first_line(error)}") from error

    def _searched(self) -> Iterator[str]:
        """Yield the images at the address, or below it."""
        system, root = _opened(self.address)
        start = root + self.where.removeprefix(self.bucket)
        kind = system.get_file_info(start or "/").type
        if kind == fs.FileType.NotFound:
            raise UserError(f"nothing is at {self.where}")
        if kind == fs.FileType.File:
            yield self.where
            return
        below = system.get_file_info(fs.FileSelector(start or "/", recursive=True))
        files = [one.path[len(root) :] for one in below if one.type == fs.FileType.File]
        seen = {self.bucket + file for file in files if "/." not in file[len(start) - len(root) :]}
        images = {file for file in seen if posixpath.splitext(file)[1].lower() in IMAGE_SUFFIXES}
        leave_out("", seen - images)
        yield from sorted(images)

    def _listed(self) -> Iterator[tuple[str, str]]:
        """Yield the images that the list at the address names, each with its caption, '' for none."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, posixpath.basename(self.where))
            with self._stream(self.where) as source, copy.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            try:
                text = copy.suffix.lower() == ".txt"
                named = [(line, "") for line in lines_of(copy)] if text else list(PathList(str(copy)).named())
            except UserError as error:
                raise UserError(str(error).replace(str(copy), self.where)) from error
        beside = posixpath.dirname(self.where).removeprefix(self.bucket)
        for path, caption in named:
            if not is_url(path):
                path = self.bucket + posixpath.normpath(posixpath.join("/", beside, path))
            elif not path.startswith(f"{self.bucket}/"):
                raise UserError(f"{self.where} names {path}, and a list leads to images of its own bucket alone")
            yield path, caption


@lru_cache
def _opened(address: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of an address, and the path of its bucket in it."""
    system, start = fs.FileSystem.from_uri(address)
    return system, start.rstrip("/").removesuffix(unquote(urlsplit(address).path).rstrip("/"))
