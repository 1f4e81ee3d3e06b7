"""Half precision by what the card can do: bf16 from Ampere on, fp16 with a scaled loss before (T4, V100)."""

import torch
from pytorch_lightning.plugins import MixedPrecision


class BestMixedPrecision(MixedPrecision):
    """``bf16-mixed`` where the hardware has bf16, else ``16-mixed``: ``trainer.plugins``.

    torch calls bf16 supported on older cards too, where it is emulated and slow.
    """

    def __init__(self) -> None:
        if not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False):
            super().__init__("bf16-mixed", "cuda" if torch.cuda.is_available() else "cpu")
        else:
            super().__init__("16-mixed", "cuda")
