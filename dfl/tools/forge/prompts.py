"""Prompts: sentences with fields such as ``{caption}``, filled in with the words of a photo."""

import os
import string
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from dfl.data import csv_files
from dfl.errors import UserError, near
from dfl.tools.forge.photos import readable
from dfl.tools.forge.plan import Picture

#: The prompt of the user's pipeline, and what is appended where a picture is too far from its photo.
SENTENCE = "A face image of {caption}. And the {gender} is {age} years old {race} and {emotion}."
AGAIN = "This face image should be similar to the initial image"


def fields(prompt: str) -> tuple[str, ...]:
    """Return the fields of a prompt, each once.

    Raises:
        UserError: If its braces make no sense.
    """
    try:
        parts = list(string.Formatter().parse(prompt))
    except ValueError as error:
        raise UserError(f"prompt {prompt!r}: {error}; a brace that is meant is written twice") from error
    for _, name, form, conversion in parts:
        if name is not None and (not name.isidentifier() or form or conversion):
            raise UserError(f"prompt {prompt!r}: {{{name}}} is no field; fields are words such as {{caption}}")
    return tuple(dict.fromkeys(name for _, name, _, _ in parts if name))


def caption_of(picture: Picture) -> str:
    """Return the caption that a photo's table has, without the full stop that the prompt's sentence has itself; ''."""
    return picture.columns.get("caption", "").rstrip(" .")


def lacking(photo: str, field: str) -> UserError:
    """Return the error of a photo without a word."""
    return UserError(
        f"{photo} has no {field}, which the prompt asks for: add an entry that says it to --models, give a table that "
        "has it (dfl data caption), or --prompts FILE"
    )


def wanted(prompts: Iterable[str], known: Collection[str], flag: str) -> list[str]:
    """Return the fields of prompts, each once.

    Raises:
        UserError: If one is not known.
    """
    names = list(dict.fromkeys(name for prompt in prompts for name in fields(prompt)))
    for name in names:
        if name not in known:
            raise UserError(
                f"{flag}: a prompt has the field {{{name}}}, and nothing says it{near(name, list(known))}; add an "
                "entry that does (Captions, an Attributes), or use a table that has it (dfl data caption)"
            )
    return names


def of_file(file: str, pictures: Sequence[Picture]) -> list[str]:
    """Return the prompt of each picture from a CSV file with the columns ``path`` and ``prompt``; '' if unreadable.

    A path is that of the picture, from the file's folder, or its name in the set, or its file's name where no other
    picture has it. Prompts may have fields, as those of models.

    Raises:
        UserError: If the file is none, or a picture that can be read has no prompt, or one has two.
    """
    path = Path(file).expanduser()
    table = csv_files.read_columns(path, ["path", "prompt"])
    names: dict[str, list[int]] = {}
    for i, picture in enumerate(pictures):
        for name in {os.path.abspath(picture.path), picture.name, os.path.basename(picture.name)}:
            names.setdefault(name, []).append(i)
    prompts: dict[int, str] = {}
    for name, prompt in zip(table["path"].to_pylist(), table["prompt"].to_pylist(), strict=True):
        found = names.get(os.path.abspath(path.parent / name)) or names.get(name, [])
        if len(found) > 1 or (found and prompts.get(found[0], prompt) != prompt):
            raise UserError(f"--prompts {file}: {name} names {len(found)} pictures, or has two prompts: give each one")
        prompts |= dict.fromkeys(found, prompt)
    absent = [picture for i, picture in enumerate(pictures) if not prompts.get(i)]
    if first := next(filter(readable, absent), None):
        raise UserError(
            f"--prompts {file} has no prompt for {len(absent):,} of {len(pictures):,} pictures: {first.name}"
        )
    return [prompts.get(i, "") for i in range(len(pictures))]
