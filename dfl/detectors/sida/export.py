"""SIDA for other programs: models of transformers with nothing left to merge."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from dfl.detectors.sida.masks import Sam
from dfl.errors import UserError
from dfl.networks import merge_lora


def export(detector: Any, folder: str | Path) -> None:
    """Write a detector.

    ``language`` holds model and tokenizer for transformers, LoRA and new rows added in; ``mask`` a SAM for
    transformers; ``heads.safetensors`` the rest, by the names that the detector has for it.

    Raises:
        UserError: If the language model is in 4 bits: what LoRA adds would be rounded to them.
    """
    if detector.hparams["four_bit"]:
        raise UserError(
            "export adds LoRA to the weights, and with model.four_bit these have 4 bits, so most of it would be "
            "rounded away: use the checkpoint as it is, or train without four_bit"
        )
    folder = Path(folder)
    merged: Any = merge_lora(detector.language)
    merged.save_pretrained(folder / "language")
    detector.conversation.tokenizer.save_pretrained(folder / "language")
    if isinstance(detector.masks, Sam):
        detector.masks.sam.save_pretrained(folder / "mask")
    heads = {k: v for k, v in detector.state_dict().items() if not k.startswith(("language.", "masks.sam."))}
    save_file({k: v.detach().cpu().contiguous() for k, v in heads.items()}, folder / "heads.safetensors")
