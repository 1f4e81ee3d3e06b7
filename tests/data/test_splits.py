"""Splits by fraction: shares met, nobody on two sides."""

import hashlib

import numpy as np
import pytest

from dfl.data.sources import to_table
from dfl.data.splits import components, split_column
from dfl.errors import UserError

PARTS = {"train": 0.7, "val": 0.1, "test": 0.2}


def test_components_join_over_any_column() -> None:
    assert components([["a", "", "b", "a", ""], ["", "v", "v", "", ""]]).tolist() == [0, 1, 1, 0, 4]


def test_shares_are_met_in_both_classes() -> None:
    table = to_table({"path": str(i), "label": int(i < 200)} for i in range(800))
    split, label = np.array(split_column(table, PARTS)), table["label"].to_numpy()
    for c, n in ((0, 600), (1, 200)):
        assert [int((split[label == c] == name).sum()) for name in PARTS] == [round(n * f) for f in PARTS.values()]
    again, other = (split_column(table, PARTS, seed).to_pylist() for seed in (0, 1))
    assert again == split.tolist() != other


def test_identities_and_videos_stay_whole() -> None:
    rng = np.random.default_rng(0)
    who = [f"p{i}" for i in rng.integers(0, 60, 500)]
    clip = [f"v{i}" if i < 30 else "" for i in rng.integers(0, 300, 500)]
    table = to_table(
        {"path": str(i), "label": i % 2, "identity": w, "video": v}
        for i, (w, v) in enumerate(zip(who, clip, strict=True))
    )
    split = split_column(table, {"train": 0.5, "test": 0.5}).to_pylist()
    for names in (who, clip):
        sides: dict[str, set[str]] = {}
        for name, side in zip(names, split, strict=True):
            sides.setdefault(name, set()).add(side)
        assert all(len(s) == 1 for name, s in sides.items() if name)
    assert len(set(split)) == 2


def test_fractions_must_add_up() -> None:
    with pytest.raises(UserError, match="add up to 1"):
        split_column(to_table([{"path": "a", "label": 0}]), {"train": 0.7, "test": 0.2})


def test_the_same_rows_get_the_same_splits_as_ever() -> None:
    """Recorded with the first version: a split of an earlier run must be that of a later one."""
    rng = np.random.default_rng(5)
    shares = (("identity", 300), ("video", 700), ("source", 90))
    names = {c: [f"{c}{i}" if i < k else "" for i in rng.integers(0, 3 * k, 3000)] for c, k in shares}
    table = to_table(
        {"path": str(i), "label": int(rng.random() < 0.3)} | {c: v[i] for c, v in names.items()} for i in range(3000)
    )
    recorded = {
        ("identity", "video", "source"): "feea9a6da161ede3",
        ("video",): "5d07afe63a46970a",
        (): "5525e987df7b8f27",
    }
    for by, digest in recorded.items():
        split = split_column(table, PARTS, 3, by=by).to_pylist()
        assert hashlib.sha256("".join(split).encode()).hexdigest()[:16] == digest


def test_many_rows_tie_the_same_two_names() -> None:
    for n in (256, 512):
        assert set(components([["a"] * n + ["a"], ["v"] * n + [""], [""] * n + ["s"]]).tolist()) == {0}
        assert set(components([["a"] * n + [""], ["v"] * n + ["v"]]).tolist()) == {0}
