"""``--models FILE``: a YAML file of ``name: {class_path: ..., init_args: ...}``, built without reading any weights.

What an entry is follows from its class: a `Model` is a maker under its name, `Words` say what photos show, a `Check`
measures how far fakes are from their photos.
"""

import gc
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from typing import Any

import torch

from dfl.cli import configs
from dfl.data.sources.written import built_as
from dfl.errors import UserError, first_line, near
from dfl.tools.forge.makers import GROUPS, MAKERS
from dfl.tools.forge.models import CLASSES
from dfl.tools.forge.models.base import Check, Model, Part, Words
from dfl.tools.forge.photos import opened, readable
from dfl.tools.forge.plan import Picture
from dfl.tools.forge.prompts import caption_of, lacking, wanted
from dfl.tools.forge.prompts import fields as fields_of
from dfl.tools.forge.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass
class Entries:
    """The entries of a file, by kind and name.

    Attributes:
        fields: Of each picture, words that its prompts ask for.
    """

    file: str
    models: dict[str, Model] = field(default_factory=dict)
    words: dict[str, Words] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    fields: list[Sequence[str]] = field(default_factory=list)
    _about: dict[str, Any] = field(default_factory=dict)

    def makers(self, roundtrip: str | None) -> list[str]:
        """Return the makers where none are named: all models, but not a VAE that is there for ``--roundtrip``."""
        return [name for name, one in self.models.items() if not (name == roundtrip and one.method == "reconstruction")]

    def settings(self, roundtrip: str | None, batch: int, device: str | None, dtype: str | None) -> dict[str, Any]:
        """Return the settings of a set that are about models, with what was not given.

        Raises:
            UserError: If there is no such model or device.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.zeros(1, device=device).item()
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--device {device}: {first_line(error)}") from error
        if roundtrip is not None and roundtrip not in self.models:
            raise UserError(f"--roundtrip: {self.file} has no model {roundtrip!r}" + near(roundtrip, list(self.models)))
        kinds = {name: one.kind for name, one in self.models.items()}
        dtype = dtype or ("float16" if device.startswith("cuda") else "float32")
        return {"models": kinds, "roundtrip": roundtrip, "batch": batch, "device": device, "dtype": dtype}

    def used(self, settings: Settings, pictures: Sequence[Picture], given: Sequence[str]) -> "Entries":
        """Return the entries that a set uses, once it is seen that they fit each other and the set.

        Raises:
            UserError: If they do not: a size, a prompt, a field that nothing says, makers whose fakes would tell.
        """
        models = {name: one for name, one in self.models.items() if name in settings.makers}
        for name, one in models.items():
            self._check_size(name, one, settings)
            if one.prompted and one.prompt is None and not given:
                raise UserError(f"--models {self.file}: {name} has no prompt: write one, or give --prompts FILE")
        prompts = [one.prompt or "" for one in models.values() if one.prompted]
        flag, prompts = ("--prompts", list(given)) if given and prompts else (f"--models {self.file}", prompts)
        captioned = [bool(caption_of(picture)) for picture in pictures]
        known = {"caption"} if any(captioned) else set()
        every = wanted(prompts, known.union(*(one.fields for one in self.words.values())), flag)
        asked = set(every) - ({"caption"} if all(captioned) else set())
        words = {name: one for name, one in self.words.items() if asked & set(one.fields)}
        if settings.roundtrip:
            models[settings.roundtrip] = self.models[settings.roundtrip]
            models[settings.roundtrip].vae()
            plain = [name for name in settings.makers if name not in models]
            if plain:
                raise UserError(f"--roundtrip is for fakes by models, and {plain[0]} is none: make two sets")
        fields: list[Sequence[str]] = [every] * len(pictures)
        if flag == "--prompts":
            fields = [fields_of(prompt) for prompt in prompts]
        for picture, needs in zip(pictures, fields, strict=True):
            self._check_words(picture, needs, list(words.values()))
        checks = self.checks if any(one.checkable for one in models.values()) else {}
        train = [picture for picture in pictures if picture.split == "train"]
        for name, check in checks.items():
            try:
                check.check_photos([partial(opened, one, settings) for one in train], [one.person for one in train])
            except UserError as error:
                raise UserError(f"--models {self.file}: {name}: {error}") from error
        return Entries(self.file, models, words, checks, fields)

    def _check_words(self, picture: Picture, fields: Sequence[str], words: Sequence[Words]) -> None:
        """Raise a UserError if a prompt asks for a word of a photo that no entry can say, such as an empty cell."""
        said = {"caption"} if caption_of(picture) else set()
        for one in words:
            known = one.unseen(picture)
            said |= set(one.fields) if known is None else {field for field, word in known.items() if word}
        absent = [field for field in fields if field not in said]
        if absent and readable(picture):
            raise lacking(picture.name, absent[0])

    def _check_size(self, name: str, model: Model, settings: Settings) -> None:
        if model.size is not None and settings.square != model.size:
            raise UserError(
                f"--models {self.file}: {name} makes {model.size}x{model.size} alone: give --square {model.size}"
            )

    def tried(self, settings: Settings, fakes: Mapping[str, int]) -> None:
        """Open each entry once and close it: what is wrong with one is said before another has worked for hours.

        Args:
            settings: Of the set.
            fakes: How many each maker is to make.

        Raises:
            UserError: If one cannot be opened, makes another size, or not as many.
        """
        device, dtype = settings.device or "cpu", getattr(torch, settings.dtype or "float32")
        for name, part in {**self.models, **self.words, **self.checks}.items():
            try:
                with redirect_stdout(StringIO()):  # what it tells of itself is told when it works
                    part.open(device, dtype)
            except torch.OutOfMemoryError as error:
                raise UserError(f"{name}: no memory on {device} for its weights: give --dtype float16") from error
            except UserError as error:
                raise UserError(f"--models {self.file}: {name}: {error}") from error
            part.close()
            gc.collect()  # pipelines hold themselves
            if isinstance(part, Model):
                self._check_size(name, part, settings)
                if part.most is not None and fakes.get(name, 0) > part.most:
                    raise UserError(f"{name} is to make {fakes[name]:,} pictures, and can make {part.most:,}")

    def about(self) -> dict[str, Any]:
        """Return what pictures depend on, flat: ``name.key``; hashes are of whole files, which takes a while once."""
        parts: dict[str, Part] = {**self.models, **self.words, **self.checks}
        self._about = self._about or {
            f"{name}.{key}": value
            for name, part in parts.items()
            for key, value in {"class": type(part).__name__, **part.about()}.items()
        }
        return self._about

    def identity(self, model: str) -> str:
        """Return the name of a model and the first 12 digits of its hash."""
        return f"{model}@{self.about()[f'{model}.sha256'][:12]}"


def read(file: str) -> Entries:
    """Return the entries of a file, a path or the name of a packaged config such as ``forge/captioned``.

    Raises:
        UserError: If the file is none, or an entry is named badly, names no class, or its class refuses its arguments.
    """
    path = configs.find(file)
    content = configs.read(path)
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"--models {file}: it must hold entries, name: {{class_path: ..., init_args: ...}}")
    entries = Entries(file)
    for name, spec in content.items():
        where = f"--models {file}: {name}"
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UserError(f"{where}: a name is of letters, digits, _ and -, since files are named by it")
        if name in MAKERS or name in GROUPS:
            raise UserError(f"{where}: there is a maker {name} already; give another name")
        part = _built(spec, where)
        kind = (
            entries.models if isinstance(part, Model) else entries.words if isinstance(part, Words) else entries.checks
        )
        kind[name] = part  # type: ignore[assignment]
    if len(entries.checks) > 1:
        raise UserError(f"--models {file}: {' and '.join(entries.checks)} both check; keep one")
    return entries


def _built(spec: Any, where: str) -> Part:
    """Return the object of an entry; its class is one of the table, or what the user names by import path."""
    name = spec.get("class_path") if isinstance(spec, Mapping) else None
    if not isinstance(name, str) or not spec.keys() <= {"class_path", "init_args"}:
        raise UserError(f"{where}: an entry is written as class_path and init_args, not {str(spec)[:60]!r}")
    if "." not in name and name not in CLASSES:
        raise UserError(f"{where}: no class {name!r}" + near(name, list(CLASSES)))
    path = f"{CLASSES[name]}.{name}" if name in CLASSES else name
    try:
        return built_as(Part, {**spec, "class_path": path}, name)  # type: ignore[type-abstract]
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
