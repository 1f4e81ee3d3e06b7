"""What real and fake are called."""

import re
from collections.abc import Iterable

from dfl.errors import UserError

#: Folder and class names whose meaning the field agrees on, lower case.
REAL_NAMES = {"real", "0_real", "nature", "original", "authentic", "au", "pristine"}
REAL_NAMES |= {"celeb-real", "youtube-real", "training_real"}
FAKE_NAMES = {"fake", "1_fake", "ai", "full_synthetic", "synthetic", "tampered", "tp", "manipulated"}
FAKE_NAMES |= {"celeb-synthesis", "training_fake"}
#: Words that say what an image is, though no known layout has them as names of folders.
REAL_WORDS = {"reals", "real_image", "real_images", "genuine", "bona_fide", "bonafide", "natural"}
FAKE_WORDS = {"fakes", "fake_image", "fake_images", "deepfake", "deepfakes", "generated", "ai_generated", "forged"}
FAKE_WORDS |= {"spoof"}
_MEANING = {**dict.fromkeys(REAL_NAMES | REAL_WORDS, 0), **dict.fromkeys(FAKE_NAMES | FAKE_WORDS, 1)}
#: Of all these, those that name other things too: pictures of nature, a country, full size.
WEAK = {"nature", "natural", "original", "ai", "au", "tp"}
#: Parts of a column's name that say what its 1 is.
REAL_PARTS = {"real", "genuine", "authentic", "authenticity", "pristine", "original", "bonafide", "live"}
REAL_PARTS |= {"liveness", "human"}
FAKE_PARTS = {"fake", "synthetic", "generated", "ai", "manipulated", "tampered", "forged", "spoof", "deepfake"}
FAKE_PARTS |= {"edited"}
_PARTS = {**dict.fromkeys(REAL_PARTS, False), **dict.fromkeys(FAKE_PARTS, True)}
#: What turns such a part round: words beside it, and what it may begin with (or not).
_NOT, _UN = {"not", "non", "no"}, ("not", "non", "no", "un", "in", "")
#: How programs write that there is nothing, lower case.
NOTHING = ("", "na", "n/a", "#n/a", "nan", "null", "none")


def label_of(name: str, real: Iterable[str] = (), fake: Iterable[str] = ()) -> int | None:
    """Return 0 or 1 for a class name, by explicit names only and never by sort order; None if unknown.

    What the caller calls real or fake goes before what the field does.

    Raises:
        UserError: If the caller calls it both.
    """
    word = name.lower()
    named = [word in {n.lower() for n in names} for names in (real, fake)]
    if all(named):
        raise UserError(f"{name!r} is named among the real and among the fake ones: take it out of one")
    if any(named):
        return int(named[1])
    return 0 if word in REAL_NAMES else 1 if word in FAKE_NAMES else None


def class_of_word(word: str) -> int | None:
    """Return 0 for a word that means real, 1 for one that means fake, None for any other."""
    plain = word.strip().lower()
    return _MEANING.get(plain, _MEANING.get(re.sub(r"[\s-]+", "_", plain)))


def parts(name: str) -> set[str]:
    """Return the words of a column's name, lower case: those of ``isReal`` and ``is_real`` are the same."""
    return set(filter(None, re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())))


def meaning_of_one(column: str) -> int | None:
    """Return what a 1 means by its column's name: 0 in ``is_real`` and ``not_fake``, 1 in ``isFake``; None for no word.

    In ``fake_or_not`` 1 is fake.
    """
    words = parts(column)
    turned = bool(words & _NOT) and "or" not in words
    roots = {word: root for word in words for start in _UN if (root := word.removeprefix(start)) in _PARTS}
    meanings = {_PARTS[root] != (turned or root != word) for word, root in roots.items()}
    return int(meanings.pop()) if len(meanings) == 1 else None


def plain_label(value: str) -> str:
    """Return a label without what only its writer added: 1 for ``1.0`` and ``True``."""
    plain = value.strip()
    match = re.fullmatch(r"(\d+)\.0+", plain)
    return {"true": "1", "false": "0"}.get(plain.lower(), match[1] if match else plain)
