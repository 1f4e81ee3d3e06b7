"""What a detector answers: the other half of the contract, beside `dfl.data.batch.Batch`."""

from collections.abc import Mapping
from typing import Any, TypedDict

from torch import Tensor

from dfl.errors import UserError


class Outputs(TypedDict, total=False):
    """Outputs for N images; ``logit`` is always there, and every other name has one meaning in all detectors."""

    logit: Tensor  # (N,) log-odds of fake
    logits: Tensor  # (N, 2) of real and fake, where the head has two outputs
    feature: Tensor  # (N, D) before the last layer
    mask_logit: Tensor  # (N, h, w) log-odds of manipulation, position by position
    teacher_forced_mask_logit: Tensor  # (N, h, w) the same, where the model was given the right class
    class_logit: Tensor  # (N, K) of `Detector.class_names`
    family_logit: Tensor  # (N, 1 + F) of the real image and the families of generators
    text: list[str]  # N explanations
    generated_text: list[str]  # N: all that was generated; ``text`` is a part of it


def checked(out: Any, n: int, detector: object) -> Outputs:
    """Return outputs of n images.

    Raises:
        UserError: If they are not what `Outputs` says.
    """
    logit = out.get("logit") if isinstance(out, Mapping) else None
    if not isinstance(logit, Tensor) or logit.shape != (n,):
        raise UserError(
            f"{type(detector).__name__}.forward must return a dict with log-odds of fake under 'logit', a tensor "
            f"({n},) for a batch of {n}, and got {shape_of(out)}"
        )
    return out


def shape_of(value: Any) -> str:
    """Return a value's type, and the shapes of what it holds, for a message."""
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shape_of(inner)}" for key, inner in value.items()) + "}"
    return f"a {type(value).__name__}"
