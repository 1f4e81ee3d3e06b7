"""For a machine with a GPU: images/s and MFU of ViT-B/16 with LoRA in bf16, eager and compiled, and of its loader.

    python -m tests.bench.gpu --images FOLDER_WITH_real_AND_fake --peak 989

MFU counts the multiply-adds that are really done: forward, the gradient of the activations, and the gradients of the
few trained weights, so about two thirds of full fine-tuning.
"""

import argparse
import time

import torch

from dfl.data import DataModule, Folder
from dfl.detectors import VitScl

GFLOP_FORWARD = 2 * 17.58  # one image of 224 px


def images_per_second(detector: VitScl, batch: int, steps: int = 30, warmup: int = 10) -> float:
    """Train on one batch that stays on the device."""
    optimizer = detector.configure_optimizers()
    data = {
        "image": torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8, device="cuda"),
        "label": torch.arange(batch, device="cuda") % 2,
    }
    for i in range(warmup + steps):
        if i == warmup:
            torch.cuda.synchronize()
            start = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = detector.loss(detector(data["image"].float() / 255), data)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.cuda.synchronize()
    return steps * batch / (time.perf_counter() - start)


def main() -> None:
    """Print one line each for eager, compiled and the loader."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--peak", type=float, default=989.0, help="dense bf16 TFLOPS of the card")
    parser.add_argument("--images", help="folder with real/ and fake/, to time the loader")
    parser.add_argument("--workers", type=int, default=16)
    words = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    for compiled in (False, True):
        detector = VitScl(pretrained=False).cuda().train()
        if compiled:
            detector.compile()
        speed = images_per_second(detector, words.batch)
        mfu = speed * 2 * GFLOP_FORWARD / 1000 / words.peak
        print(f"ViT-B/16 LoRA bf16 {'compiled' if compiled else 'eager'}: {speed:,.0f} images/s, MFU {mfu:.1%}")
    if words.images:
        data = DataModule(test={"x": Folder(words.images)}, size=224, batch_size=words.batch, num_workers=words.workers)
        data.setup("test")
        start, n = time.perf_counter(), 0
        for batch in data.test_dataloader()[0]:
            n += len(batch["image"])
        print(f"loader, {words.workers} workers: {n / (time.perf_counter() - start):,.0f} images/s")


if __name__ == "__main__":
    main()
