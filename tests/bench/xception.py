"""Classifier Xception as configured (channels last, fused Adam) against a plain NCHW float32 loop; batch 8 at 256 px.

The plain loop is what DeepfakeBench's training step amounts to: the same network, layout and precision.
"""

import timm
import torch
import torch.nn.functional as F

from dfl.detectors import Classifier
from tests.bench.timing import in_turns


def main() -> dict[str, float]:
    """Print and return the seconds of a step each way and the ratios."""
    image = torch.randint(0, 256, (8, 3, 256, 256), dtype=torch.uint8)
    label = torch.arange(8) % 2
    plain = timm.create_model("legacy_xception", num_classes=2).train()
    adam = torch.optim.Adam(plain.parameters(), lr=2e-4)
    ours = Classifier("legacy_xception", pretrained=False).train()
    ours.setup("fit")
    fused = ours.configure_optimizers()
    pixels = image.float().div(127.5).sub(1)

    def nchw() -> None:
        loss = F.cross_entropy(plain(pixels), label)
        adam.zero_grad()
        loss.backward()
        adam.step()

    def step(bf16: bool) -> None:
        batch = ours.on_after_batch_transfer({"image": image, "label": label}, 0)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = ours.loss(ours(batch["image"]), batch)["loss"]
        fused.zero_grad()
        loss.backward()
        fused.step()

    ways = {"plain": nchw, "float32": lambda: step(False)}
    if torch.cpu._is_avx512_bf16_supported():  # emulated elsewhere: 18 times slower than float32 on AVX2
        ways["bf16"] = lambda: step(True)
    seconds = in_turns(ways)
    ratios = {name: seconds["plain"] / seconds[name] for name in ways if name != "plain"}
    half = f"bf16 {seconds['bf16']:.2f} s, ratio {ratios['bf16']:.2f}" if "bf16" in ways else "bf16 not measured"
    print(
        f"xception: plain {seconds['plain']:.2f} s, ours float32 {seconds['float32']:.2f} s, ratio "
        f"{ratios['float32']:.2f} (goal 1.4); {half} (goal 2.2 with AVX512-BF16)"
    )
    return ratios


if __name__ == "__main__":
    main()
