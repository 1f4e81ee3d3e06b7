"""What SIDA asks and what it is to answer, as tokens.

    prompt    ... image tokens ... question
    answer    [CLS] The image is real
              [CLS] The image is full synthetic
              [CLS] The image is tampered [SEG]
              and, where it is known, what gives it away: [CLS] The image is tampered [SEG] Its inner face ... [END]

The prompt is the same for all images, so answers alone are padded, on the right, and generation needs no padding.
Prompt and answer are tokenised apart and put together as ids: the border between them is the same in training and in
generation, whatever the tokenizer would merge.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dfl.errors import UserError

CLS, SEG, END = NEW_TOKENS = ("[CLS]", "[SEG]", "[END]")
QUESTION = "Is this image real, full synthetic or tampered? If it is tampered, mask the tampered regions."
CLASSES = ("real", "full synthetic", "tampered")
_ANSWER = re.compile(r"\s*\[CLS\]\s*The image is (real|full synthetic|tampered(?=\s*\[SEG\]))\s*(?:\[SEG\])?(.*)", re.S)
#: Targets of this value are left out of the loss.
IGNORED = -100


@dataclass
class Encoded:
    """Sequences of N images, L tokens each."""

    ids: Tensor  # (N, L) long
    attention: Tensor  # (N, L) long, 0 on padding
    target: Tensor  # (N, L) long: the ids of the answer, IGNORED elsewhere; not shifted
    cls: Tensor  # (N,) long, position whose hidden state is the detection feature
    seg: Tensor  # (N,) long, the same of the mask; that of ``cls`` where the answer has no [SEG]


def answer(kind: int, explanation: str = "") -> str:
    """Return the answer for a class, 0 real, 1 full synthetic, 2 tampered."""
    sentence = f"{CLS} The image is {CLASSES[kind]}" + (f" {SEG}" if kind == 2 else "")
    return f"{sentence} {explanation} {END}" if explanation else sentence


def parse(text: str) -> tuple[int, str]:
    """Return class and explanation of an answer, class -1 (and the whole text) where it is none."""
    match = _ANSWER.match(text)
    if not match:
        return -1, text.strip()
    return CLASSES.index(match[1]), match[2].partition(END)[0].strip()


def position(ids: Tensor, token: int, predicting: bool = True) -> Tensor:
    """Return where a token first is in each row (N, L), or with ``predicting`` the place before it; -1 if nowhere."""
    met = ids == token
    return torch.where(met.any(1), met.int().argmax(1) - int(predicting), -1)


def local_tokenizer(corpus: Sequence[str], extra: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on the templates and further sentences: nothing is downloaded, any text can be written.

    Args:
        corpus: Sentences.
        extra: Tokens of the model's family that the prompt holds.
    """
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2048, special_tokens=special, initial_alphabet=alphabet)
    sentences = [QUESTION, *(f" The image is {name}" for name in CLASSES), *(f" {s} {s}" for s in corpus)]
    tokenizer.train_from_iterator(sentences, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.add_tokens([t for t in extra if t not in special], special_tokens=True)
    return fast


class Conversation:
    """Turns answers into sequences with all positions, and what was generated back into text.

    Args:
        tokenizer: The new tokens are added to it.
        prompt: With ``{image}`` and ``{question}``.
        image_token: That token; it stands ``count`` times in the sequence.
        count: Tokens of an image.
        predicting: Features come from the position that predicts a token, as in the official code, or from the token.
        longest: Most tokens of a sequence.
        longest_answer: Most tokens of an answer; explanations are cut there.

    Raises:
        UserError: If the tokenizer cannot hold the new tokens or the image token, or the prompt is too long.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompt: str,
        image_token: str,
        count: int,
        predicting: bool = True,
        longest: int = 2048,
        longest_answer: int = 256,
    ) -> None:
        self.tokenizer, self.predicting, self.longest_answer = tokenizer, predicting, longest_answer
        tokenizer.add_tokens(list(NEW_TOKENS))
        self.new = [tokenizer.convert_tokens_to_ids(t) for t in NEW_TOKENS]
        self.image = tokenizer.convert_tokens_to_ids(image_token)
        if len({*self.new, self.image, tokenizer.unk_token_id}) < 5 or tokenizer.cls_token_id in self.new:
            raise UserError(
                f"the tokenizer has no room of its own for {', '.join(NEW_TOKENS)} and {image_token}: it is not one of "
                "a vision-language model with a generating language model; name another model.language"
            )
        ids = tokenizer(prompt.format(image=image_token, question=QUESTION))["input_ids"]
        if ids[-1] == tokenizer.eos_token_id:  # some tokenizers end every text
            ids = ids[:-1]
        at = ids.index(self.image)
        self.prompt = ids[:at] + [self.image] * count + ids[at + 1 :]
        self.start, self.count = at, count
        if len(self.prompt) + 16 > longest:
            raise UserError(
                f"the prompt has {len(self.prompt)} tokens, {count} of them of the image, and the language model reads "
                f"{longest}: take a smaller model.view_size, or a text_config with more max_position_embeddings"
            )
        self.longest_answer = min(longest_answer, longest - len(self.prompt))
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def encode(self, answers: Sequence[str], device: torch.device | str = "cpu") -> Encoded:
        """Return the sequences of answers, each with its end of sequence."""
        rows = [self.tokenizer(a, add_special_tokens=False)["input_ids"][: self.longest_answer - 1] for a in answers]
        rows = [[*row, self.tokenizer.eos_token_id] for row in rows]
        widest, before = max(map(len, rows)), len(self.prompt)
        ids = torch.tensor([self.prompt + row + [self.pad] * (widest - len(row)) for row in rows], device=device)
        length = torch.tensor([before + len(row) for row in rows], device=device)
        place = torch.arange(before + widest, device=device)
        inside = place < length[:, None]
        target = torch.where(inside & (place >= before), ids, IGNORED)
        cls, seg = (position(ids, token, self.predicting) for token in self.new[:2])
        return Encoded(ids, inside.long(), target, cls, torch.where(seg < 0, cls, seg))

    def decode(self, generated: Tensor) -> list[str]:
        """Return the text of generated ids (N, T), new tokens included, without padding and end of sequence."""
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in generated.tolist()]
