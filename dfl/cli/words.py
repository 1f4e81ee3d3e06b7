"""The words of a command as flags and values."""

from collections.abc import Iterator

from dfl.errors import UserError

#: Flags that may stand without a value.
ALONE = ("-h", "--help", "--print_config", "--overwrite", "--metadata")
#: Those of them that mean true.
TRUE = ("--overwrite", "--metadata")


def pairs(words: list[str]) -> Iterator[tuple[str, str | None]]:
    """Yield (flag, value), whether written ``--flag value`` or ``--flag=value``; ('', word) for a bare word."""
    at = 0
    while at < len(words):
        flag, equals, value = words[at].partition("=")
        at += 1
        if not flag.startswith("-") or flag == "-":
            yield "", flag + equals + value
        elif not flag.startswith("--") and flag not in ("-c", "-h"):
            raise UserError(f"options are written with two dashes: -{flag}")
        elif equals:
            yield flag, value
        elif flag in ALONE:
            yield flag, None
        elif at == len(words) or words[at].startswith("--"):
            if not flag.endswith(".help"):  # --model.help, or --model.help CLASS
                raise UserError(f"{flag} needs a value: {flag}=VALUE")
            yield flag, None
        else:
            yield flag, words[at]
            at += 1
