"""The hash of weights: that of sha256, taken once for the same tensors, anew for changed ones."""

import hashlib

import pytest
import torch

from dfl.runs.weights_hash import WeightsHash


def test_is_sha256_of_names_and_bytes() -> None:
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3]], dtype=torch.bfloat16)}
    want = b"a" + weights["a"].numpy().tobytes() + b"b" + weights["b"].view(torch.int16).numpy().tobytes()
    assert WeightsHash()(weights) == hashlib.sha256(want).hexdigest()


def test_is_taken_again_only_where_something_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, real = [], hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda *args: taken.append(1) or real(*args))
    layer, of = torch.nn.Linear(2, 3), WeightsHash()
    first = of(layer.state_dict())
    assert of(layer.state_dict()) == first
    assert len(taken) == 1
    with torch.no_grad():
        layer.weight[0, 0] += 1
    second = of(layer.state_dict())
    assert second != first
    layer.double()
    third = of(layer.state_dict())
    assert third != second
    assert of({"bias": layer.bias}) != third
    assert len(taken) == 4
