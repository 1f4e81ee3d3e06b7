"""What a stranger's file may give: plain values that fit a signature, and nothing else."""

from collections.abc import Callable
from typing import Any, Literal

import pytest

from dfl.runs.plain import LONGEST, Misfit, Sentences, arguments, fit

KINDS: dict[str, Any] = {
    "extra": {"depth": int, "inner": {"width": int}, "layers": list[int], "drop_rate": float, "std": tuple[float, ...]},
    "corpus": Sentences,
}


class Network:
    def __init__(
        self,
        name: str = "vit",
        count: int = 1,
        rate: float = 0.5,
        flag: bool = False,
        mode: Literal["a", "b"] = "a",
        size: int | None = None,
        pair: tuple[float, float] = (0.0, 1.0),
        names: tuple[str, ...] = (),
        extra: dict[str, Any] | None = None,
        corpus: list[str] | None = None,
        make: Callable[[int], int] = abs,
    ) -> None: ...


@pytest.mark.parametrize(
    "given",
    [
        {"name": "legacy_xception.tf_in1k", "count": 3, "rate": 1, "flag": True, "mode": "b", "size": None},
        {"pair": [0.1, 0.2], "names": ["qkv", "patch_embed.*", "*norm*"]},
        {"extra": {"depth": 12, "inner": {"width": 4}}, "corpus": ["Any text: it's fine, 100 %."]},
        {"extra": None},
        {"extra": {"layers": [4, 44, 87, 4], "drop_rate": 0.5, "std": [0.2, 1 / 255, 57.4]}},
    ],
)
def test_plain_values_are_taken_as_they_are(given: dict[str, Any]) -> None:
    assert arguments(Network, given, KINDS) == given


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "/etc/passwd"}, "a plain word"),
        ({"name": "../up"}, "a plain word"),
        ({"name": "hf-hub:someone/model"}, "a plain word"),
        ({"name": "C:\\x"}, "a plain word"),
        ({"name": '{"class_path": "os.system"}'}, "a plain word"),
        ({"name": "évil.Opt"}, "a plain word"),
        ({"name": "a\nb"}, "a plain word"),
        ({"name": "x" * 101}, "a plain word"),
        ({"count": True}, "an integer"),
        ({"count": 1.5}, "an integer"),
        ({"count": "3"}, "an integer"),
        ({"count": 10**9}, "between"),
        ({"count": -(10**9)}, "between"),
        ({"rate": float("nan")}, "a number"),
        ({"rate": float("inf")}, "a number"),
        ({"rate": [1.0]}, "a number"),
        ({"flag": 1}, "true or false"),
        ({"mode": "c"}, "one of a, b"),
        ({"mode": ["a"]}, "one of a, b"),
        ({"size": "large"}, "an integer"),
        ({"pair": [1.0]}, "a list of 2"),
        ({"names": "qkv"}, "a list"),
        ({"names": ["a/b"]}, "a plain word"),
        ({"names": ["a"] * (LONGEST + 1)}, "a list"),
        ({"extra": {"checkpoint_path": "x.pth"}}, "which a file cannot give"),
        ({"extra": {"depth": 10_000}}, "between 1 and 200"),
        ({"extra": {"layers": [101, 100]}}, "layers that holds 201 in all, and it must hold no more than 200"),
        ({"extra": {"drop_rate": 1.0}}, "between 0.0 and 0.999"),
        ({"extra": {"std": [0.2, 0.2, 0.0]}}, "between 0.0001 and 10,000"),
        ({"extra": {"inner": {"depth": 1}}}, "which a file cannot give"),
        ({"extra": [1]}, "a mapping"),
        ({"corpus": ["\x1b[31m"]}, "printable"),
        ({"make": {"class_path": "os.system"}}, "which a file cannot give"),
        ({"make": "os.system"}, "which a file cannot give"),
        ({"unknown": 1}, "does not take"),
        ({7: 1}, "does not take"),
        (["name"], "a mapping"),
        ("name", "a mapping"),
    ],
)
def test_anything_else_is_refused_and_named(given: Any, says: str) -> None:
    with pytest.raises(Misfit, match=says) as misfit:
        arguments(Network, given, KINDS)
    assert str(misfit.value).isprintable()


def test_a_dictionary_without_a_table_of_its_keys_is_refused() -> None:
    with pytest.raises(Misfit, match="which a file cannot give"):
        arguments(Network, {"extra": {"depth": 1}}, {})


def test_lists_that_hold_themselves_end() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Misfit):
        fit(loop, tuple[str, ...])
    with pytest.raises(Misfit):
        arguments(Network, {"extra": {"inner": loop}}, KINDS)
