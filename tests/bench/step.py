"""What Detector and Trainer cost: their training step against a bare PyTorch loop over the same network and batches."""

import logging
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from dfl.detectors import VitScl
from dfl.training import KeyedRandomness
from tests.bench.timing import in_turns

STEPS, BATCH = 16, 16


class Fixed(torch.utils.data.Dataset):
    """The same few images again and again, as the loader hands them over."""

    def __len__(self) -> int:
        return STEPS * BATCH

    def __getitem__(self, i: int) -> dict[str, Any]:
        g = torch.Generator().manual_seed(i % 8)
        return {"image": torch.randint(0, 256, (3, 224, 224), dtype=torch.uint8, generator=g), "label": i % 2}


def build() -> VitScl:
    torch.manual_seed(0)
    return VitScl("vit_tiny_patch16_224", pretrained=False)


def main() -> dict[str, float]:
    """Print and return seconds of a step each way and their ratio."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    batches = list(DataLoader(Fixed(), batch_size=BATCH))
    bare, ours = build(), build()
    optimizer = torch.optim.Adam([p for p in bare.parameters() if p.requires_grad], lr=1e-3, fused=True)

    def loop() -> None:
        for batch in batches:
            image = batch["image"].float().div_(127.5).sub_(1)
            feature = bare.network.forward_head(bare.network.forward_features(image), pre_logits=True)
            loss = F.cross_entropy(bare.network.head(feature), batch["label"])
            loss = loss + 0.5 * bare.criterion.pull(feature, batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def trainer() -> None:
        run = pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[KeyedRandomness()],
        )
        run.fit(ours, train_dataloaders=DataLoader(batches, batch_size=None))

    bare.train()
    seconds = in_turns({"bare": loop, "ours": trainer}, rounds=3)
    ratio = seconds["ours"] / seconds["bare"]
    print(
        f"step: ours {seconds['ours'] / STEPS:.3f} s, bare loop {seconds['bare'] / STEPS:.3f} s, "
        f"ViT-Ti LoRA batch {BATCH}, ratio {ratio:.3f} (goal at most 1.05)"
    )
    return {"ratio": ratio}


if __name__ == "__main__":
    main()
