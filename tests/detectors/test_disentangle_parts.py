"""AdaIN, blocks, heads, decoder and the Xception encoder: the official code's numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from named_weights import fill

from dfl.detectors.disentangle.networks import (
    ConditionalDecoder,
    ConvBlock,
    PooledHead,
    XceptionEncoder,
    adain,
    load_cadene,
)
from dfl.errors import UserError

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "disentangle_parts.npz")


def golden(name: str) -> torch.Tensor:
    return torch.tensor(GOLDEN[name])


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_adain_equals_the_official_code(case: str) -> None:
    x, y = (golden(f"adain/{case}/{k}").requires_grad_() for k in "xy")
    out = adain(x, y)
    torch.testing.assert_close(out, golden(f"adain/{case}/out"), atol=1e-5, rtol=1e-5)
    (out * golden(f"adain/{case}/w")).sum().backward()
    torch.testing.assert_close(x.grad, golden(f"adain/{case}/grad_x"), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(y.grad, golden(f"adain/{case}/grad_y"), atol=1e-4, rtol=1e-3)


def test_the_mean_after_adain_is_that_of_y_whatever_x_is() -> None:
    x, y = (torch.randn(3, 16, 8, 8, requires_grad=True) for _ in range(2))
    pooled = adain(x, y).mean((2, 3))
    torch.testing.assert_close(pooled, y.mean((2, 3)), atol=1e-6, rtol=0)
    pooled.pow(2).sum().backward()
    assert x.grad.abs().max() < 1e-4 * y.grad.abs().max()


def test_adain_is_float32_under_autocast() -> None:
    x, y = torch.randn(2, 4, 8, 8).bfloat16(), torch.randn(2, 4, 8, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(adain(x, y), adain(x.float(), y.float()))


def test_block_and_head_equal_the_official_code() -> None:
    block, head = ConvBlock(32, 16, 16), PooledHead(16, 32, 8).eval()
    for module, prefix in ((block, "block_head/block."), (head, "block_head/head.")):
        module.load_state_dict({k.removeprefix(prefix): golden(k) for k in GOLDEN if k.startswith(prefix)})
    out = block(golden("block_head/x"))
    logits, pooled = head(out)
    torch.testing.assert_close(out, golden("block_head/block_out"), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits, golden("block_head/head_logits"), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooled, golden("block_head/head_feat"), atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in ConvBlock(512, 256, 256).parameters()) == 262_912


def test_decoder_equals_the_official_code() -> None:
    decoder = ConditionalDecoder().eval()
    fill(decoder, "con_gan.")
    assert sum(p.numel() for p in decoder.parameters()) == 2_323_523
    with torch.no_grad():
        c, x = golden("decoder/c"), golden("decoder/x")
        torch.testing.assert_close(adain(x, c), golden("decoder/adain3"), atol=1e-5, rtol=1e-5)
        up = decoder.dconv_up3(decoder._enlarge(adain(x, c)))
        torch.testing.assert_close(up[:, ::8], golden("decoder/up3"), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(decoder(c, x), golden("decoder/out"), atol=1e-4, rtol=0)


def test_encoder_equals_the_official_code() -> None:
    encoder = XceptionEncoder().eval()
    fill(encoder, "encoder_f.")
    assert sum(p.numel() for p in encoder.parameters()) == 21_861_162 - 4_098  # less the classifier, never used
    image = golden("encoder/image_uint8").float() / 127.5 - 1
    with torch.no_grad():
        maps = encoder.forward_features(image)
        torch.testing.assert_close(maps[:, ::16], golden("encoder/bn4_pre_relu_c16"), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(encoder.adjust_channel(maps), golden("encoder/features"), atol=1e-4, rtol=1e-4)
    assert encoder.adjust_channel(maps).shape == (1, 512, 8, 8)


def test_imagenet_weights_with_flat_pointwise_layers_load() -> None:
    encoder, source = XceptionEncoder(), XceptionEncoder()
    state = {k: v[:, :, 0, 0] if "pointwise" in k else v for k, v in source.state_dict().items()}
    state = {k: v for k, v in state.items() if not k.startswith("adjust_channel") and "tracked" not in k}
    state |= {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    load_cadene(encoder, state, "xception-b5690688.pth")
    assert torch.equal(encoder.block7.rep[1].pointwise.weight, source.block7.rep[1].pointwise.weight)
    assert not torch.equal(encoder.adjust_channel[0].weight, source.adjust_channel[0].weight)
    del state["bn3.weight"]
    with pytest.raises(UserError, match=r"xception-b5690688.pth does not fit .* 1 missing \(bn3.weight\)"):
        load_cadene(encoder, state, "xception-b5690688.pth")
