"""What the file of an image says of its making, beside any score: anyone can write it, and anyone can take it out.

Signed manifests (C2PA, "content credentials") are checked; tags of EXIF and XMP and text chunks of PNG files are only
read. Nothing is fetched: a manifest that lies elsewhere, and the state of a certificate, stay unknown.
"""

import io
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from lightning_utilities.core.imports import RequirementCache
from PIL import Image

from dfl.data.decoding import DecodeError, open_header
from dfl.data.locators import read_bytes, split
from dfl.errors import UserError, visible

#: Columns: ``verified``, ``untrusted`` (whole, and its signer is not on the list), ``broken`` (the file was changed
#: since, or the manifest), ``none``, or `NOT_LOOKED`; what the manifest says; the program; signs of a generator.
COLUMNS = ("c2pa", "c2pa_says", "software", "generator_tags")
HAS_C2PA = RequirementCache("c2pa-python>=0.38")
#: In the place of the state of a manifest, where the package that reads them is not installed.
NOT_LOOKED = "not looked for: no c2pa-python"
_STATES = {"Trusted": "verified", "Valid": "untrusted", "Invalid": "broken"}
_SETTINGS = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True}}
#: Text chunks, or tags, that generators write, and whose they are.
_CHUNKS = {
    "parameters": "Stable Diffusion web UI",
    "workflow": "ComfyUI",
    "sd-metadata": "InvokeAI",
    "invokeai_metadata": "InvokeAI",
    "dream": "InvokeAI",
    "fooocus_scheme": "Fooocus",
}
_NAMES = re.compile(
    r"stable[ -]?diffusion|midjourney|dall[-·. ]?e\b|firefly|novelai|comfyui|invokeai|fooocus|automatic1111|imagen\b"
    r"|gemini|flux\.1|openai|leonardo\.ai|ideogram",
    re.IGNORECASE,
)
#: How the web UI writes its settings into EXIF, and the IPTC's words for what a model made, or made a part of.
_SETTINGS_IN_TEXT = re.compile(r"\bSteps: \d+, Sampler: ")
_SOURCE_TYPE = re.compile(r"\b(trainedAlgorithmicMedia|compositeWithTrainedAlgorithmicMedia)\b")
#: Longest text of a cell, and of a tag that is looked at.
_CELL, _TAG = 200, 1 << 16
_SOFTWARE, _DESCRIPTION, _EXIF, _COMMENT, _ARTIST, _MAKE = 0x131, 0x10E, 0x8769, 0x9286, 0x13B, 0x10F
#: Tags in which a generator may be named, and those of them in which people and studios are named too.
_NAMING, _OF_PEOPLE = ("software", "description", "title", "source", "comment"), ("artist", "author", "make")
_ALSO_PEOPLE = ("imagen", "gemini", "firefly")


def need_c2pa() -> None:
    """Raise a UserError if the package that reads signed manifests is not installed."""
    if not HAS_C2PA:
        raise UserError("--trust checks signed manifests with the package c2pa-python: pip install 'dfl[metadata]'")


def metadata(locator: str, trusted: str = "") -> dict[str, str]:
    """Return what an image's file says, by `COLUMNS`; '' for what is not known, as of a frame of a video.

    Args:
        locator: Where the image is.
        trusted: Certificates, PEM, of those whose manifests are believed; without any no manifest is verified.
    """
    if split(locator)[1].keys() & {"frame", "at"}:
        return dict.fromkeys(COLUMNS, "")
    try:
        return metadata_of(read_bytes(locator), trusted)
    except DecodeError:
        return dict.fromkeys(COLUMNS, "")


def metadata_of(content: bytes, trusted: str = "") -> dict[str, str]:
    """Return `metadata` of the bytes of a file."""
    found = dict.fromkeys(COLUMNS, "")
    try:
        with open_header("<bytes>", io.BytesIO(content)) as image:
            found |= _manifest(content, Image.MIME.get(str(image.format), ""), trusted)
            texts = dict(_texts(image))
    except Exception:  # Pillow raises nearly anything on a damaged header, and these are words of strangers
        return found
    found["software"] = texts.get("Software") or texts.get("software") or ""
    found["generator_tags"] = "; ".join(dict.fromkeys(_tags(texts)))
    return {name: visible(text)[:_CELL] for name, text in found.items()}


def _manifest(content: bytes, mime: str, trusted: str) -> dict[str, str]:
    """Return what becomes of a signed manifest, and what it says: programs, and how the picture came to be."""
    if not HAS_C2PA:
        return {"c2pa": NOT_LOOKED}
    import c2pa  # an extra

    try:
        with c2pa.Reader(mime, io.BytesIO(content), context=_context(trusted)) as reader:
            told, state = json.loads(reader.json()), reader.get_validation_state()
    except c2pa.C2paError as error:
        kind = type(error).__name__
        # a format that it does not support, such as BMP, has no place for one
        return {"c2pa": "none" if "ManifestNotFound" in kind or "NotSupported" in kind else "broken"}
    active = told.get("manifests", {}).get(told.get("active_manifest"), {})
    programs = [str(one.get("name", "")) for one in active.get("claim_generator_info") or []]
    sources = dict.fromkeys(_SOURCE_TYPE.findall(json.dumps(active.get("assertions") or [])))
    signer = str((active.get("signature_info") or {}).get("issuer", ""))
    says = [*programs, *sources, *([f"signed by {signer}"] if signer else [])]
    return {"c2pa": _STATES.get(state, "broken"), "c2pa_says": "; ".join(filter(None, says))}


@lru_cache(maxsize=1)
def _context(trusted: str) -> Any:
    import c2pa  # an extra

    settings = _SETTINGS | ({"trust": {"trust_anchors": trusted}} if trusted else {})
    return c2pa.Context(settings=c2pa.Settings.from_dict(settings))


def _texts(image: Image.Image) -> Iterator[tuple[str, str]]:
    """Yield names and texts of what stands in a header: text chunks, XMP, and five tags of EXIF."""
    for name, value in image.info.items():
        if isinstance(value, str | bytes) and name not in ("exif", "icc_profile"):
            yield str(name), _text(value)
    exif = image.getexif()
    for name, value in (
        ("Software", exif.get(_SOFTWARE)),
        ("description", exif.get(_DESCRIPTION)),
        ("Artist", exif.get(_ARTIST)),
        ("Make", exif.get(_MAKE)),
        ("comment", exif.get_ifd(_EXIF).get(_COMMENT)),
    ):
        if isinstance(value, str | bytes) and value:
            yield name, _text(value)


def _text(value: str | bytes) -> str:
    """Return at most `_TAG` characters; EXIF's comments are often UTF-16 behind eight bytes that say so."""
    if isinstance(value, bytes):
        value = value[: 2 * _TAG].replace(b"\0", b"").decode("utf-8", "replace")
    return value[:_TAG].strip()


def _tags(texts: dict[str, str]) -> Iterator[str]:
    """Yield the signs of a generator."""
    for name, text in texts.items():
        if (maker := _CHUNKS.get(name.lower())) and text:
            yield f"{name} ({maker})"
        if _SETTINGS_IN_TEXT.search(text) and name.lower() not in _CHUNKS:
            yield f"{name} ({_CHUNKS['parameters']})"
        if source := _SOURCE_TYPE.search(text):
            yield source[1]
        if name.lower() == "prompt" and '"class_type"' in text:  # a graph of nodes, where others write words
            yield f"{name} ({_CHUNKS['workflow']})"
        named = _NAMES.search(text) if name.lower() in (*_NAMING, *_OF_PEOPLE) else None
        if named and not (name.lower() in _OF_PEOPLE and named[0].lower() in _ALSO_PEOPLE):
            yield f"{name} names {named[0]}"
