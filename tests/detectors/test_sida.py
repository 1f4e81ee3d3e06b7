"""SIDA: positions by hand for each family, one pass that is two runs, what is trained and saved, errors."""

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_utilities.core.imports import RequirementCache
from safetensors.torch import load_file, save_file
from test_contract import TINY_LLAVA, batch_for, trainer
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.quantizers.quantizers_utils import should_convert_module

from dfl import detectors
from dfl.detectors import Sida
from dfl.detectors.sida import building
from dfl.detectors.sida.families import FAMILIES
from dfl.detectors.sida.masks import Sam
from dfl.detectors.sida.sida import NOTHING, classes
from dfl.detectors.sida.text import CLASSES, IGNORED, answer, parse, position
from dfl.errors import UserError
from dfl.runs.init_from import InitFrom

TOWER = {"hidden_size": 32, "intermediate_size": 64, "patch_size": 8}
SIGLIP = TOWER | {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
QWEN_TEXT = TINY_LLAVA["text_config"] | {"hidden_size": 64, "num_attention_heads": 4, "head_dim": 16}
QWEN_TOWER = TOWER | {"depth": 2, "num_heads": 2, "spatial_merge_size": 2, "out_hidden_size": 64}


def folded(kind: str) -> dict[str, Any]:
    vision = SIGLIP | {"model_type": f"{kind}_vision"}
    text = TINY_LLAVA["text_config"]
    return {"model_type": kind, "scale_factor": 2, "vision_config": vision, "text_config": text}


#: The smallest model of each family, the tokens that its image has, and where they begin in the prompt.
MODELS: dict[str, dict[str, Any]] = {
    "llava": TINY_LLAVA,
    "smolvlm": folded("smolvlm"),
    "idefics3": folded("idefics3"),
    "qwen3_vl": {
        "model_type": "qwen3_vl",
        "vision_config": QWEN_TOWER
        | {"model_type": "qwen3_vl_vision", "deepstack_visual_indexes": [0, 1], "num_position_embeddings": 64},
        "text_config": QWEN_TEXT
        | {"model_type": "qwen3_vl_text", "rope_parameters": ROPE | {"mrope_interleaved": True}},
    },
    "qwen2_5_vl": {
        "model_type": "qwen2_5_vl",
        "vision_config": QWEN_TOWER
        | {"model_type": "qwen2_5_vl_vision", "window_size": 32, "fullatt_block_indexes": [1]},
        "text_config": QWEN_TEXT | {"model_type": "qwen2_5_vl_text", "rope_parameters": ROPE},
    },
}
IMAGE_TOKENS = {"llava": 16, "smolvlm": 4, "idefics3": 4, "qwen3_vl": 4, "qwen2_5_vl": 4}
SAM = {
    "model_type": "sam",
    "vision_config": {
        **{"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "mlp_dim": 64},
        **{"image_size": 64, "patch_size": 16, "window_size": 2, "global_attn_indexes": [1], "num_pos_feats": 16},
        "initializer_range": 0.02,
    },
    "prompt_encoder_config": {"hidden_size": 32, "image_size": 64, "patch_size": 16},
    "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32},
}
HIERA = {
    **{
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
    },
    **{"embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 2, 4, 8]},
    **{"window_size_per_stage": [4, 2, 2, 2], "global_attention_blocks": [3]},
    "window_positional_embedding_background_size": [4, 4],
}
SAM2 = {
    "model_type": "sam2",
    "vision_config": {
        **{"backbone_config": HIERA, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": 32},
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    },
    "prompt_encoder_config": {"hidden_size": 32, "image_size": 64, "patch_size": 16},
    "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4},
}
SHORT = TINY_LLAVA["text_config"] | {"max_position_embeddings": 40}
LORA = {"rank": 2, "dropout": 0.0}


def build(kind: str = "llava", **words: Any) -> Sida:
    torch.manual_seed(0)
    view = 32 if kind.startswith("qwen") else None
    return Sida(language_config=MODELS[kind], **{"dim": 32, "longest_answer": 16, "view_size": view} | words)


def mixed(detector: Sida) -> dict[str, Any]:
    """Real, synthetic, tampered with its upper half masked; the first and last are explained."""
    batch = batch_for(detector, 3)
    batch["class_label"] = torch.tensor([0, 1, 2])
    batch["label"] = torch.tensor([0, 1, 1])
    batch["has_mask"] = torch.ones(3, dtype=torch.bool)
    batch["mask"][2, : batch["mask"].shape[1] // 2] = 1
    batch["explanation"] = ["It is.", "", "The top."]
    return batch


every_family = pytest.mark.parametrize("kind", MODELS)


# text and positions


def test_positions_by_hand() -> None:
    ids = torch.tensor([[5, 8, 8, 6, 1, 7, 2, 0], [5, 8, 8, 6, 1, 7, 0, 0]])
    assert position(ids, 1).tolist() == [3, 3]
    assert position(ids, 2).tolist() == [5, -1]
    assert position(ids, 2, predicting=False).tolist() == [6, -1]


@every_family
def test_sequence_of_each_family(kind: str) -> None:
    detector = build(kind)
    talk, count = detector.conversation, IMAGE_TOKENS[kind]
    cls, seg, end = talk.new
    said = talk.encode([answer(2), answer(0, "Yes")])
    before, image = len(talk.prompt), talk.image
    assert FAMILIES[kind] is type(detector.family)
    # the image is one run of tokens, where the family says it begins; no "+255"
    for row in said.ids.tolist():
        assert [i for i, t in enumerate(row) if t == image] == list(range(talk.start, talk.start + count))
        assert row[before] == cls
    assert talk.tokenizer.decode(talk.prompt[: talk.start]).endswith(
        {"llava": "USER: ", "qwen3_vl": "<|vision_start|>", "qwen2_5_vl": "<|vision_start|>"}.get(kind, "<global-img>")
    )
    first, second = said.ids.tolist()
    at = first.index(seg)
    # the states that predict [CLS] and [SEG]: one place before each; an answer without [SEG] falls back to [CLS]
    assert said.cls.tolist() == [before - 1] * 2
    assert said.seg.tolist() == [at - 1, before - 1]
    assert second.index(end) > before
    stop = talk.tokenizer.eos_token_id
    for row, target, attention in zip(said.ids.tolist(), said.target.tolist(), said.attention.tolist(), strict=True):
        after = row.index(stop, before) + 1
        assert target == [IGNORED] * before + row[before:after] + [IGNORED] * (len(row) - after)
        assert attention == [1] * after + [0] * (len(row) - after)
    assert build(kind, feature="token").conversation.encode([answer(2)]).seg.tolist() == [at]


def test_answers_are_parsed_back() -> None:
    talk = build().conversation
    for kind in range(3):
        for explanation in ("", "The inner face, replaced."):
            ids = torch.tensor([talk.tokenizer(answer(kind, explanation))["input_ids"]])
            assert parse(talk.decode(ids)[0]) == (kind, explanation)
    assert parse("The image is real") == (-1, "The image is real")
    assert parse("[CLS] The image is tampered") == (-1, "[CLS] The image is tampered")


def test_classes_from_label_and_mask() -> None:
    mask = torch.zeros(5, 4, 4)
    mask[1, :2], mask[2] = 1, 1
    batch = {
        "class_label": torch.tensor([-1, -1, -1, -1, 1]),
        "label": torch.tensor([0, 1, 1, 1, 1]),
        "mask": mask,
        "has_mask": torch.tensor([True, True, True, False, False]),
    }
    assert classes(batch).tolist() == [0, 2, 1, -1, 1]


# one pass


@every_family
def test_class_does_not_depend_on_the_answer_nor_on_neighbours(kind: str) -> None:
    detector = build(kind).eval()
    image = batch_for(detector, 3)["image"]
    given = [detector._read(image, [answer(k)] * 3)[0]["class_logit"] for k in range(3)]
    torch.testing.assert_close(given[0], given[1])
    torch.testing.assert_close(given[0], given[2])
    torch.testing.assert_close(given[0][:1], detector(image[:1])["class_logit"])
    assert given[0].std(0).max() > 1e-6  # but on the image


@every_family
def test_hidden_states_are_those_of_transformers(kind: str) -> None:
    detector = build(kind).eval()
    model, family, talk = detector.language, detector.family, detector.conversation
    view, said = detector.view(batch_for(detector, 2)["image"]), talk.encode([answer(2), answer(0)])
    seen = family.see(model, view)
    ours = family.hidden(model, said.ids, said.attention, talk.start, seen)
    if kind.startswith("qwen"):
        from transformers import Qwen2VLImageProcessor

        processor = Qwen2VLImageProcessor(patch_size=8, merge_size=2, temporal_patch_size=2)
        words = processor(list(view), do_resize=False, do_rescale=False, do_normalize=False, return_tensors="pt")
        words = dict(words) | {"mm_token_type_ids": (said.ids == talk.image).int()}
    else:
        words = {"pixel_values": view if kind == "llava" else view[:, None]}
    theirs = model.model(input_ids=said.ids, attention_mask=said.attention, use_cache=False, **words).last_hidden_state
    kept = said.attention.bool()
    torch.testing.assert_close(ours[kept], theirs[kept], rtol=1e-4, atol=1e-5)
    g = family.side // family.patch
    assert seen.features.shape == (2, family.width, g, g)


@every_family
def test_generation_with_a_cache_is_greedy(kind: str) -> None:
    detector = build(kind, longest_answer=5).eval()
    model, family, talk = detector.language, detector.family, detector.conversation
    seen = family.see(model, detector.view(batch_for(detector, 2)["image"]))
    ids = torch.tensor([talk.prompt] * 2)
    written = family.generate(model, ids, talk.start, seen, max_new_tokens=5, eos_token_id=None, pad_token_id=talk.pad)
    for _ in range(5):
        hidden = family.hidden(model, ids, torch.ones_like(ids), talk.start, seen)
        ids = torch.cat([ids, model.get_output_embeddings()(hidden[:, -1]).argmax(1, keepdim=True)], 1)
    assert torch.equal(written, ids[:, len(talk.prompt) :])


def test_mask_of_the_free_run_is_nothing_unless_tampered() -> None:
    detector = build().eval()
    image = batch_for(detector, 3)["image"]
    for kind in range(3):
        with torch.no_grad():
            detector.detect[-1].bias.copy_(10 * torch.eye(3)[kind])
        out = detector(image)
        assert out["class_logit"].argmax(1).tolist() == [kind] * 3
        assert torch.equal(out["mask_logit"], out["teacher_forced_mask_logit"]) == (kind == 2)
        assert (kind == 2) or bool((out["mask_logit"] == NOTHING).all())
        torch.testing.assert_close(out["logit"].sigmoid(), 1 - out["class_logit"].softmax(1)[:, 0])


@pytest.mark.parametrize("mode", ["official", "two_key"])
def test_detection_informs_the_mask_only_with_two_keys(mode: str) -> None:
    detector = build(fusion=mode).eval()
    image = batch_for(detector, 2)["image"]
    before = detector(image)["teacher_forced_mask_logit"]
    detector.fusion.project.weight.data.mul_(3)
    changed = (detector(image)["teacher_forced_mask_logit"] - before).abs().max()
    assert (changed > 1e-6) == (mode == "two_key")


def test_both_sides_see_one_image() -> None:
    detector = build(mask=None, mask_config=SAM)
    pixels = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    view = detector.view(pixels / 255)
    small = torch.nn.functional.interpolate(pixels.float() / 255, (32, 32), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in detector.family.normalisation)
    torch.testing.assert_close(view, (small - mean) / std, rtol=1e-4, atol=1e-5)


# training


@pytest.mark.parametrize("text_weight", [0.0, 1.0])
@pytest.mark.parametrize(
    "words",
    [
        {"train_tower": True},
        {"lora": LORA},
        {"lora": LORA, "tokens": "all", "checkpointing": True},
        {"lora": LORA, "mask": None, "mask_config": SAM},
        {"lora": LORA, "mask": None, "mask_config": SAM2},
    ],
    ids=["full", "lora", "all", "sam", "sam2"],
)
@pytest.mark.filterwarnings("ignore:.*activation_checkpointing")
def test_every_part_gets_a_gradient_tampered_image_or_not(words: dict[str, Any], text_weight: float) -> None:
    detector = build(text_weight=text_weight, **words)
    detector.log_losses = lambda *args: None  # type: ignore[method-assign]
    for tampered in (True, False):
        batch = mixed(detector)
        if not tampered:
            batch["class_label"] = torch.tensor([0, 1, 1])
            batch["explanation"] = [""] * 3
        detector.zero_grad()
        detector.training_step(batch, 0).backward()
        trained = {n: p for n, p in detector.named_parameters() if p.requires_grad}
        assert [n for n, p in trained.items() if p.grad is None] == []
        alive = any(p.grad.abs().max() > 0 for n, p in trained.items() if n.startswith("masks."))
        assert alive == tampered
    assert any("trainable_tokens" in n for n in trained) == (words.get("lora") is not None and "tokens" not in words)


def test_losses_of_a_mixed_batch_by_hand() -> None:
    detector = build(class_weight=2.0, bce_weight=3.0, dice_weight=0.5)
    batch = mixed(detector)
    out = detector(batch["image"])
    losses = detector.loss(out, batch)
    want = torch.nn.functional.cross_entropy(out["class_logit"], batch["class_label"])
    torch.testing.assert_close(losses["det"], want)
    alone = detector.loss({k: v[2:] for k, v in out.items()}, {k: v[2:] for k, v in batch.items()})
    torch.testing.assert_close(losses["mask"], alone["mask"])
    torch.testing.assert_close(losses["mask"], 3 * losses["bce"] + 0.5 * losses["dice"])
    torch.testing.assert_close(losses["loss"], 2 * losses["det"] + losses["mask"])
    batch["class_label"] = torch.tensor([0, -1, 2])  # a fake of an unknown kind and without a mask is any fake
    batch["has_mask"][1] = False
    det = detector.loss(out, batch)["det"]
    each = -torch.stack([out["class_logit"].log_softmax(1)[i, k] for i, k in ((0, 0), (2, 2))]).sum()
    torch.testing.assert_close(det, (each - torch.nn.functional.logsigmoid(out["logit"][1])) / 3)


def test_text_loss_is_that_of_transformers_on_explained_answers() -> None:
    detector = build(text_weight=1.0).eval()
    answers = [answer(0, "It is."), answer(2, "The top.")]
    out, said, _ = detector._read(batch_for(detector, 2)["image"], answers)
    logits = detector.language.get_output_embeddings()(out["hidden"])
    for weight in ([1.0, 1.0], [0.0, 1.0]):
        ours = detector._text_loss(out["hidden"], said, torch.tensor(weight))
        labels = said.target.where(torch.tensor(weight)[:, None] > 0, IGNORED)
        theirs = detector.language.loss_function(logits, labels, vocab_size=logits.shape[-1])
        torch.testing.assert_close(ours, theirs)
    assert float(detector._text_loss(out["hidden"], said, torch.zeros(2))) == 0


def test_learns_to_write_the_template() -> None:
    detector = build(text_weight=1.0, train_tower=True)
    detector.log_losses = lambda *args: None  # type: ignore[method-assign]
    batch, optimizer = mixed(detector), torch.optim.Adam([p for p in detector.parameters() if p.requires_grad], 3e-3)
    batch["explanation"] = ["Fine", "Odd", "Top"]
    for _ in range(120):
        optimizer.zero_grad()
        detector.training_step(batch, 0).backward()
        optimizer.step()
    detector.eval()
    with torch.no_grad():
        out, _, seen = detector._read(batch["image"], [answer(2)] * 3)
        assert [parse(t) for t in detector.write(seen, 3)] == [(0, "Fine"), (1, "Odd"), (2, "Top")]
    mask = torch.nn.functional.interpolate(batch["mask"][:, None], 16)[2, 0] > 0.5
    found = out["teacher_forced_mask_logit"][2] > 0
    assert (mask & found).sum() / (mask | found).sum() > 0.9


# saving


def test_a_text_is_written_for_the_centre_view_alone() -> None:
    detector, batch = build(text_weight=1.0).eval(), {}
    detector._trainer = SimpleNamespace(validating=False, training=False, sanity_checking=False)  # type: ignore[assignment]
    written: list[int] = []
    detector.write = lambda seen, n: written.append(n) or ["[CLS] real."] * n  # type: ignore[method-assign, func-returns-value]
    image = mixed(detector)["image"]
    batch = {"image": image, "index": torch.arange(3), "views": torch.stack([image.flip(3), image], 1)}
    with torch.no_grad():
        out = detector.over_views(batch)[1]
        whole = [detector(one) for one in (image, image.flip(3), image)]
    assert written == [3]
    assert len(out["text"]) == 3
    assert torch.allclose(out["class_logit"], sum(one["class_logit"] for one in whole) / 3, atol=1e-5)
    assert torch.equal(out["mask_logit"], whole[0]["mask_logit"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A language model with its tokenizer and a SAM, as folders that transformers loads."""
    root, detector = tmp_path_factory.mktemp("models"), build(mask=None, mask_config=SAM)
    plain = copy.deepcopy(detector.conversation.tokenizer)
    detector.language.save_pretrained(root / "language")
    plain.save_pretrained(root / "language")
    assert isinstance(detector.masks, Sam)
    detector.masks.sam.save_pretrained(root / "sam")
    return {"language": str(root / "language"), "mask": str(root / "sam")}


def saved(detector: Sida, folder: Path) -> Path:
    run = trainer(folder)
    run.strategy.connect(detector)
    run.save_checkpoint(folder / "a.ckpt")
    return folder / "a.ckpt"


@pytest.mark.parametrize("tokens", ["rows", "all"])
def test_named_bases_stay_out_of_the_checkpoint(tokens: str, folders: dict[str, str], tmp_path: Path) -> None:
    detector = Sida(**folders, lora=LORA, tokens=tokens, text_weight=1.0, longest_answer=16)
    for parameter in detector.parameters():  # as if trained
        if parameter.requires_grad:
            parameter.data += 0.01 * torch.randn_like(parameter)
    file = saved(detector, tmp_path)
    held = torch.load(file, weights_only=True)
    frozen = {n for n, p in detector.named_parameters() if not p.requires_grad}
    assert frozen
    assert not frozen & set(held["state_dict"])
    assert all(n in held["dfl"]["backbone"]["name"] for n in folders.values())
    with pytest.raises(UserError, match="give mask to dfl"):
        detectors.load(file, language=folders["language"])
    again = detectors.load(file, **folders)
    image = batch_for(detector, 2)["image"]
    for key in ("class_logit", "teacher_forced_mask_logit"):
        assert torch.equal(again(image)[key], detector.eval()(image)[key])
    other = build(mask=None, mask_config=SAM)
    other.language.model.language_model.layers[0].mlp.up_proj.weight.data += 1
    other.language.save_pretrained(tmp_path / "other")
    other.conversation.tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="this backbone is another one"):
        detectors.load(file, language=str(tmp_path / "other"), mask=folders["mask"])


def test_what_is_trained_is_in_float32() -> None:
    """A step of 1e-4 is lost on a weight of 1 in bfloat16, and is not where the base alone is in it."""
    lost = torch.ones((), dtype=torch.bfloat16) - 1e-4
    assert float(lost) == 1
    tied = MODELS["smolvlm"] | {"tie_word_embeddings": True}
    for tokens, config in (("rows", MODELS["llava"]), ("all", MODELS["qwen3_vl"]), ("all", tied)):
        qwen = config["model_type"].startswith("qwen")
        torch.manual_seed(0)
        detector = Sida(
            language_config=config, lora=LORA, tokens=tokens, dtype="bfloat16", text_weight=1.0,
            dim=32, longest_answer=4, view_size=32 if qwen else None,
        )  # fmt: skip
        detector.log_losses = lambda *args: None  # type: ignore[method-assign]
        trained = {n: p for n, p in detector.named_parameters() if p.requires_grad}
        assert {p.dtype for p in trained.values()} == {torch.float32}
        assert {p.dtype for n, p in detector.named_parameters() if n not in trained} == {torch.bfloat16}
        batch = mixed(detector)
        detector.training_step(batch, 0).backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in trained.values())
        detector.eval()
        out, _, seen = detector._read(batch["image"], [answer(2)] * 3)
        assert out["hidden"].dtype == torch.bfloat16
        assert len(detector.write(seen, 3)) == 3


class Packed(torch.nn.Linear):
    """As bitsandbytes 0.46 has it: weights in bytes, and what unpacks them in the state, which it does not load."""

    def __init__(self, plain: torch.nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None)
        self.bias, self.plain = plain.bias, plain.weight.data
        pieces = plain.weight.data.reshape(-1, 1).mul(1000).to(torch.uint8)
        self.weight = torch.nn.Parameter(pieces, requires_grad=False)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("absmax", "quant_state.bitsandbytes__nf4"):
            destination[f"{prefix}weight.{name}"] = torch.ones(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.plain.to(x.dtype), self.bias)


def test_four_bits_are_of_the_language_model_and_not_in_the_checkpoint(
    folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers is told which layers to pack; here a stand-in packs them by its rule, as there is no GPU."""
    asked: list[Any] = []
    load = AutoModelForImageTextToText.from_pretrained

    def packing(name: str, quantization_config: Any = None, **words: Any) -> Any:
        model, info = load(name, **words)
        if quantization_config is not None:
            asked.append(quantization_config)
            for key, module in list(model.named_modules()):
                if isinstance(module, torch.nn.Linear) and should_convert_module(
                    key, quantization_config.llm_int8_skip_modules
                ):
                    parent, _, child = key.rpartition(".")
                    setattr(model.get_submodule(parent), child, Packed(module))
        return model, info

    monkeypatch.setattr(building, "RequirementCache", lambda wanted: True)
    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", packing)
    words = {**folders, "lora": LORA, "text_weight": 1.0, "longest_answer": 16}
    detector = Sida(**words, four_bit=True)
    assert (asked[0].load_in_4bit, asked[0].bnb_4bit_quant_type) == (True, "nf4")
    packed = {n for n, m in detector.language.named_modules() if isinstance(m, Packed)}
    layers = detector.language.get_submodule("model.language_model").layers
    assert len(packed) == 7 * len(layers)
    assert all(n.startswith("model.language_model.layers.") for n in packed)
    trained = {n for n, p in detector.named_parameters() if p.requires_grad}
    assert all(p.dtype == torch.float32 for n, p in detector.named_parameters() if n in trained)
    for parameter in detector.parameters():
        if parameter.requires_grad:
            parameter.data += 0.01 * torch.randn_like(parameter)
    held = torch.load(saved(detector, tmp_path), weights_only=True)
    assert not [k for k, v in held["state_dict"].items() if v.dtype == torch.uint8 or "absmax" in k or "nf4" in k]
    assert trained <= set(held["state_dict"])
    again = detectors.load(tmp_path / "a.ckpt", **folders)
    image = batch_for(detector, 2)["image"]
    assert torch.equal(again(image)["class_logit"], detector.eval()(image)["class_logit"])
    with pytest.raises(UserError, match="this backbone is another one"):  # not the same weights in 16 bits
        detectors.load(tmp_path / "a.ckpt", four_bit=False, **folders)
    with pytest.raises(UserError, match="train without four_bit"):
        detector.export(tmp_path)


def test_four_bits_without_bitsandbytes_or_its_device(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = {**folders, "lora": LORA, "four_bit": True}
    monkeypatch.setattr(building, "RequirementCache", lambda wanted: False)
    with pytest.raises(UserError, match=r"model\.four_bit needs bitsandbytes: pip install 'dfl\[sida\]'"):
        Sida(**words)
    monkeypatch.setattr(building, "RequirementCache", lambda wanted: True)
    if not RequirementCache("bitsandbytes"):  # transformers' own word
        with pytest.raises(UserError, match=r"model\.four_bit: bitsandbytes cannot load .* here: .*bitsandbytes"):
            Sida(**words)


def test_export_needs_nothing_of_ours(folders: dict[str, str], tmp_path: Path) -> None:
    detector = Sida(**folders, lora=LORA, text_weight=1.0, longest_answer=16).eval()
    for parameter in detector.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    detector.export(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "language", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "language")
    assert tokenizer.convert_tokens_to_ids(["[CLS]", "[SEG]", "[END]"]) == detector.conversation.new
    said = detector.conversation.encode([answer(2)])
    view = detector.view(batch_for(detector, 1)["image"])
    logits = model(input_ids=said.ids, attention_mask=said.attention, pixel_values=view).logits
    seen = detector.family.see(detector.language, view)
    hidden = detector.family.hidden(detector.language, said.ids, said.attention, detector.conversation.start, seen)
    torch.testing.assert_close(logits, detector.language.get_output_embeddings()(hidden), rtol=1e-3, atol=1e-4)
    heads = load_file(tmp_path / "heads.safetensors")
    assert torch.equal(heads["detect.0.weight"], detector.detect[0].weight)


def begin(detector: Sida, file: Path) -> None:
    """Take up an earlier stage, as ``--init_from`` does before the first step."""
    run = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    run.strategy.connect(detector)
    InitFrom(file).on_fit_start(run, detector)


def test_stage_two_takes_up_stage_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = build(lora=LORA)
    for parameter in first.parameters():
        parameter.data += 0.01
    file = saved(first, tmp_path)
    second = build(lora=LORA, text_weight=1.0)
    begin(second, file)
    image = batch_for(first, 2)["image"]
    key = "teacher_forced_mask_logit"
    assert torch.equal(first.eval()(image)[key], second.eval()(image)[key])
    begin(build(dim=64, lora=LORA), file)
    assert "of another shape: " in capsys.readouterr().out.splitlines()[-1]


# cache


class Counted:
    """Counts the images that a SAM's encoder sees."""

    def __init__(self, masks: Sam) -> None:
        self.images = 0
        masks.sam.vision_encoder.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.images += len(args[0] if args else kwargs["pixel_values"])


@pytest.mark.parametrize("config", [SAM, SAM2], ids=["sam", "sam2"])
def test_kept_embeddings_are_those_of_the_encoder(config: dict[str, Any], tmp_path: Path) -> None:
    detector = build(mask=None, mask_config=config).eval()
    image = torch.rand(3, 3, 64, 64)
    masks = detector.masks
    assert isinstance(masks, Sam)
    seen = Counted(masks)
    plain = detector(image)["teacher_forced_mask_logit"]
    assert seen.images == 3
    masks.keep_embeddings(tmp_path)
    torch.testing.assert_close(detector(image)["teacher_forced_mask_logit"], plain)
    assert seen.images == 6
    torch.testing.assert_close(detector(image)["teacher_forced_mask_logit"], plain)
    torch.testing.assert_close(detector(image[[2, 0]])["teacher_forced_mask_logit"], plain[[2, 0]])
    assert seen.images == 6
    image[1, 0, 5, 5] += 1e-3  # another image
    other = detector(image)["teacher_forced_mask_logit"]
    assert seen.images == 7
    torch.testing.assert_close(other[[0, 2]], plain[[0, 2]])
    masks.keep_embeddings(None)
    torch.testing.assert_close(other, detector(image)["teacher_forced_mask_logit"])


def test_cache_is_of_one_network_and_one_precision(tmp_path: Path) -> None:
    detector = build(mask=None, mask_config=SAM).eval()
    masks, image = detector.masks, torch.randn(2, 3, 64, 64)
    assert isinstance(masks, Sam)
    masks.keep_embeddings(tmp_path)
    assert masks.cache is not None
    first = masks.cache.keys(image)
    assert first == masks.cache.keys(image)
    assert len(set(first)) == 2
    with torch.autocast("cpu", torch.bfloat16):
        assert not set(first) & set(masks.cache.keys(image))
    with torch.no_grad():
        detector.masks.sam.vision_encoder.neck.conv1.weight[0, 0] += 1e-3
    assert not set(first) & set(masks.cache.keys(image))
    with torch.no_grad():  # what is trained is not part of it
        next(detector.masks.sam.mask_decoder.parameters()).add_(1)
    again = masks.cache.keys(image)
    settings = SAM | {"vision_config": SAM["vision_config"] | {"layer_norm_eps": 1e-5}}
    other = build(mask=None, mask_config=settings)
    other.load_state_dict(detector.state_dict(), strict=False)
    assert isinstance(other.masks, Sam)
    other.masks.keep_embeddings(tmp_path)
    assert other.masks.cache is not None
    assert not set(again) & set(other.masks.cache.keys(image))


@pytest.mark.parametrize("content", ["", "cut", "zeros", "empty"])
def test_a_broken_file_of_the_cache_is_made_anew(content: str, tmp_path: Path) -> None:
    detector = build(mask=None, mask_config=SAM).eval()
    masks, image = detector.masks, torch.randn(1, 3, 64, 64)
    assert isinstance(masks, Sam)
    seen = Counted(masks)
    masks.keep_embeddings(tmp_path)
    assert masks.cache is not None
    want = detector(image)["teacher_forced_mask_logit"]
    masks.cache.flush()
    (file,) = tmp_path.rglob("*.safetensors")
    whole = file.read_bytes()
    masks.keep_embeddings(tmp_path)  # as another process opens it
    if content == "empty":
        save_file({}, file)
    else:
        file.write_bytes({"": b"", "cut": whole[:-10], "zeros": bytes(len(whole))}[content])
    assert torch.equal(detector(image)["teacher_forced_mask_logit"], want)
    assert seen.images == 2
    masks.cache.flush()
    assert file.read_bytes() == whole
    assert [f.name for f in file.parent.iterdir()] == [file.name]  # nothing half written is left


def test_cache_through_the_trainer_and_its_errors(tmp_path: Path) -> None:
    detector = build(mask=None, mask_config=SAM, cache=str(tmp_path / "kept"))
    masks = detector.masks
    assert isinstance(masks, Sam)
    run = trainer(tmp_path)
    run.strategy.connect(detector)
    detector.trainer = run
    for stage, kept in (("test", True), ("predict", False), ("validate", True)):
        detector.setup(stage)
        assert (masks.cache is not None) == kept
    (tmp_path / "kept").write_text("a file")
    detector(torch.randn(1, 3, 64, 64))
    with pytest.raises(UserError, match=r"model\.cache: cannot write to"):
        detector.teardown("test")
    masks.sam.vision_encoder.requires_grad_(True)
    with pytest.raises(UserError, match=r"frozen encoder, and vision_encoder\..* is trained"):
        detector.setup("test")
    with pytest.raises(UserError, match=r"model\.mask is light"):
        build(cache=str(tmp_path))


# errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"language": "no/such-model"}, "no weights at 'no/such-model'|no tokenizer at 'no/such-model'"),
        ({"mask": "no/such-sam"}, "model.mask: no weights at 'no/such-sam'"),
        ({"mask": None, "mask_config": {"model_type": "vit"}}, "must be light, a SAM or a SAM 2"),
        ({"language_config": None}, "names no model"),
        ({"language_config": {"model_type": "nope"}}, "makes no model of type 'nope'"),
        (
            {"language_config": {"model_type": "paligemma"}},
            "'paligemma'; there are adapters for|makes no model",
        ),
        ({"view_size": 48}, "sees images of 32"),
        ({"view_size": 30}, "multiple of 8"),
        ({"lora": {"rnk": 2}}, "no 'rnk'; did you mean 'rank'"),
        ({"lora": {"targets": ["qkv"]}}, "no layer of the language model is a qkv: there are"),
        ({"four_bit": True}, "needs model.lora"),
        ({"four_bit": True, "lora": LORA}, "four_bit packs pretrained weights, and model.language names none"),
        ({"mask": None, "mask_config": SAM, "input_size": 32}, "this SAM sees images of 64"),
        (
            {
                "language_config": TINY_LLAVA
                | {"text_config": TINY_LLAVA["text_config"] | {"max_position_embeddings": 40}}
            },
            "the prompt has 5. tokens, 16 of them of the image, and the language model reads 40",
        ),
    ],
)
def test_bad_arguments_give_one_line(words: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        Sida(**{"language_config": TINY_LLAVA, "dim": 32} | words)
    assert "\n" not in str(caught.value)


def test_a_folder_without_needed_weights_is_an_error(folders: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(UserError, match=r"model\.language: no"):
        Sida(language=str(tmp_path))
    assert CLASSES[2] == "tampered"


def test_a_folder_with_half_of_the_weights_is_an_error(folders: dict[str, str], tmp_path: Path) -> None:
    for kind in ("language", "mask"):
        shutil.copytree(folders[kind], tmp_path / kind)
        file = tmp_path / kind / "model.safetensors"
        kept = {k: v for k, v in load_file(file).items() if ".layers." not in k}
        save_file(kept, file, {"format": "pt"})
        with pytest.raises(
            UserError, match=rf"model\.{kind}: .* lacks \d+ weights of its .*, such as .*layers"
        ) as caught:
            Sida(**folders | {kind: str(tmp_path / kind)}, lora=LORA)
        assert "\n" not in str(caught.value)


def test_loaded_models_train_what_is_trained(folders: dict[str, str]) -> None:
    detector = Sida(**folders, lora=LORA, checkpointing=True)
    assert isinstance(detector.masks, Sam)
    assert detector.language.get_submodule("model.language_model").training  # else nothing is checkpointed
    assert not detector.language.get_submodule("model.vision_tower").training
    assert detector.masks.sam.mask_decoder.training
    assert not detector.masks.sam.vision_encoder.training


def test_a_model_without_a_part_is_an_error() -> None:
    detector = build()
    del detector.language.model.vision_tower
    with pytest.raises(UserError, match="LlavaForConditionalGeneration has no part 'vision_tower'"):
        detector.family.part(detector.language, "tower")


def test_checkpointing_changes_nothing() -> None:
    gradients = []
    for checkpointing in (False, True):
        detector = build(lora=LORA, text_weight=1.0, checkpointing=checkpointing)
        detector.log_losses = lambda *args: None  # type: ignore[method-assign]
        seen: list[int] = []
        layer = detector.language.get_submodule("model.language_model.layers.0.mlp")
        layer.register_forward_pre_hook(lambda *args, seen=seen: seen.append(1))
        detector.training_step(mixed(detector), 0).backward()
        assert len(seen) == 1 + checkpointing  # it runs a second time in the backward pass
        gradients.append({n: p.grad for n, p in detector.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-7)
