"""Metrics of texts: ROUGE-L by hand, similarity by a tiny encoder made here, and what happens without one."""

import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from dfl.errors import UserError
from dfl.metrics import Texts, text

SPECIAL = ["[PAD]", "[UNK]", "[CLS]"]
WORDS = [
    *SPECIAL,
    "the",
    "whole",
    "picture",
    "carries",
    "white",
    "noise",
    "no",
    "camera",
    "makes",
    "face",
    "was",
    "replaced",
]


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path / "encoder"
    tokens = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]")
    tokens.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(WORDS), **sizes)).save_pretrained(folder)
    text.encoder.cache_clear()
    return folder


@pytest.mark.parametrize(
    ("said", "wanted", "score"),
    [
        ("a b c d", "a b c d", 1.0),
        ("The inner FACE, was replaced.", "the inner face was replaced", 1.0),
        ("b a", "a b", 0.5),  # one word in order, of two and two
        ("a x b y", "a b c", 4 / 7),  # two in order: precision 1/2, recall 2/3
        ("nothing alike", "a b", 0.0),
        ("", "a b", 0.0),
    ],
)
def test_rouge_l_by_hand(said: str, wanted: str, score: float) -> None:
    assert text.rouge_l(said, wanted) == pytest.approx(score)


def test_only_images_with_an_explanation_count_and_each_once() -> None:
    metric = Texts(name="a")
    metric.update(["a b", "x", "c d", "", "e"], ["a b", "", "d c", "e f", "e"], torch.tensor([5, 1, 0, 2, -1]))
    metric.update(["a b"], ["a b"], torch.tensor([5]))
    rows = metric.rows()
    assert rows["index"].tolist() == [0, 2, 5]
    assert rows["rouge_l"].tolist() == [0.5, 0, 1]
    assert set(metric.compute()) == {"rouge_l"}
    assert float(metric.compute()["rouge_l"]) == 0.5
    empty = Texts(name="a")
    empty.update(["a"], [""], torch.tensor([0]))
    with pytest.warns(UserWarning, match="domain 'a': no image has an explanation"):
        assert math.isnan(empty.compute()["rouge_l"])
    with pytest.raises(ValueError, match="2 texts, 1 explanations"):
        metric.update(["a", "b"], ["a"], torch.tensor([0]))


def test_similarity_is_the_cosine_of_mean_states(encoder: Path) -> None:
    said = ["the whole picture carries white noise", "face was replaced"]
    wanted = ["the whole picture carries white noise", "no camera makes the face"]
    metric = Texts(str(encoder))
    metric.update(said, wanted, torch.arange(2))
    same, other = metric.rows()["css"].tolist()
    assert same == pytest.approx(1, abs=1e-6)
    network = BertModel.from_pretrained(encoder).eval()

    def embed(words: str) -> torch.Tensor:
        ids = torch.tensor([[WORDS.index(w) for w in words.split()]])
        with torch.no_grad():
            return network(input_ids=ids).last_hidden_state[0].mean(0)

    # one by one, without padding
    assert other == pytest.approx(float(torch.cosine_similarity(embed(said[1]), embed(wanted[1]), 0)), abs=1e-6)
    assert other < 0.999
    (encoder / "1_Pooling").mkdir()
    (encoder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    text.encoder.cache_clear()
    first = text.encoder(str(encoder), "cpu")(["the face"])
    ids = torch.tensor([[WORDS.index("the"), WORDS.index("face")]])
    with torch.no_grad():
        state = network(input_ids=ids).last_hidden_state[0, 0]
    torch.testing.assert_close(first[0], state / state.norm(), rtol=0, atol=1e-6)


def test_without_an_encoder_similarity_is_left_out_with_one_notice(tmp_path: Path) -> None:
    text._notice.cache_clear()
    with pytest.warns(UserWarning, match="text_css is left out: set the detector's text_model"):
        Texts().update(["a"], ["a"], torch.tensor([0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Texts().update(["a"], ["a"], torch.tensor([0]))
    for model in (str(tmp_path / "nowhere"), "no/such-encoder"):
        with pytest.raises(UserError, match=r"text_model: cannot load the sentence encoder .*give a local folder"):
            Texts(model).update(["a"], ["a"], torch.tensor([0]))
