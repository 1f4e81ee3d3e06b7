"""How near explanations are to the ones that people or another model wrote, of one domain.

ROUGE-L asks for the same words in the same order: the longest common subsequence of the words, as an F-measure (Lin
2004; torchmetrics counts it). It cannot tell a paraphrase from nonsense. Cosine semantic similarity (CSS) embeds both
texts with a sentence encoder and takes the cosine. Which encoder decides the numbers, so there is no default: name one,
or CSS is left out.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.text.rouge import rouge_score
from torchmetrics.utilities import rank_zero_warn

from dfl.errors import UserError, first_line
from dfl.hub import offline_if_no_network
from dfl.metrics.gathered import Gathered


def rouge_l(text: str, reference: str) -> float:
    """Return the ROUGE-L F-measure in [0, 1] of two texts: lower case, words of letters a-z and digits, no stemming."""
    return float(rouge_score([text], [[reference]], rouge_keys="rougeL")["rougeL_fmeasure"])


class Encoder:
    """A sentence encoder of transformers, as sentence-transformers packs it.

    Args:
        model: A local folder, or a name of the Hugging Face hub.
        device: Where it runs.

    Raises:
        UserError: If it is not there or has no safetensors.
    """

    def __init__(self, model: str, device: torch.device | str = "cpu") -> None:
        import transformers  # here, since only detectors that write text need its models; peft brings it

        place = str(Path(model).expanduser()) if Path(model).expanduser().is_dir() else model
        try:
            with offline_if_no_network():
                self.tokenizer = transformers.AutoTokenizer.from_pretrained(place)
                network = transformers.AutoModel.from_pretrained(place, use_safetensors=True, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise UserError(
                f"text_model: cannot load the sentence encoder {model!r} ({first_line(error)}); give a local "
                "folder with config.json, a tokenizer and model.safetensors, or a hub name such as "
                "sentence-transformers/all-MiniLM-L6-v2"
            ) from error
        self.network = network.eval().requires_grad_(False).to(device)
        self.first_token = _pools_first_token(place)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Return an embedding of length 1 for each text, float32 (N, D)."""
        batch = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(self.network.device)
        with torch.autocast(self.network.device.type, enabled=False):
            state = self.network(**batch).last_hidden_state.float()
        if self.first_token:
            return F.normalize(state[:, 0], dim=1)
        mask = batch["attention_mask"][..., None].float()
        return F.normalize((state * mask).sum(1) / mask.sum(1), dim=1)


def _pools_first_token(place: str) -> bool:
    """Whether an encoder takes its first token, not the mean over tokens; sentence-transformers writes it down."""
    from transformers.utils import cached_file

    file = cached_file(
        place,
        "1_Pooling/config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return bool(file and json.loads(Path(file).read_text(encoding="utf-8")).get("pooling_mode_cls_token", False))


#: The encoder of a name on a device; domains and epochs share one.
encoder = cache(Encoder)


@cache
def _notice() -> None:
    rank_zero_warn(
        "text_css is left out: set the detector's text_model to a sentence encoder (a local folder or a hub name)"
    )


class Texts(Gathered):
    """ROUGE-L and CSS of the texts of one domain.

    Args:
        model: Sentence encoder of CSS, a local folder or a hub name; None leaves CSS out, with one notice.
        name: the domain, for warnings.
        kwargs: of `torchmetrics.Metric`.

    `compute()` returns 0-dimensional float64 tensors on the CPU, means over the images that have an explanation:
    ``rouge_l`` and, with a model, ``css`` in [-1, 1]. NaN where no image has one.
    """

    def __init__(self, model: str | None = None, name: str = "", **kwargs: Any) -> None:
        super().__init__(("rouge_l",) if model is None else ("rouge_l", "css"), name, **kwargs)
        self.model = model

    def take(self, output: Sequence[str], batch: Mapping[str, Any]) -> None:
        """Add the N texts of a batch."""
        self.update(output, batch["explanation"], batch["index"])

    def update(self, text: Sequence[str], explanation: Sequence[str], index: Tensor) -> None:
        """Add a batch.

        Args:
            text: N texts that a detector wrote; an empty one counts 0 in ROUGE-L.
            explanation: N texts that were wanted; '' for unknown, which is left out.
            index: (N,) row in the data set; rows with an index < 0 are padding and are left out.

        Raises:
            ValueError: for lists of different lengths.
            UserError: If the sentence encoder is not there.
        """
        if not len(text) == len(explanation) == len(index):
            raise ValueError(f"{len(text)} texts, {len(explanation)} explanations and {len(index)} indices")
        rows = index.tolist()
        used = [i for i, reference in enumerate(explanation) if reference.strip() and rows[i] >= 0]
        if not used:
            return
        texts, references = [text[i] for i in used], [explanation[i] for i in used]
        columns = [torch.tensor([*map(rouge_l, texts, references)], dtype=torch.float64)]
        if self.model is None:
            _notice()
        else:
            embed = encoder(self.model, str(self.device))
            columns.append((embed(texts) * embed(references)).sum(1).double().cpu())
        self.add_rows(index.cpu()[used], *columns)

    def rows(self) -> dict[str, Tensor]:
        """Return ``index`` int64 and each measure float64, (M,) each, of all ranks, on the CPU."""
        index, numbers = self.gathered()
        return {"index": index} | dict(zip(self.columns, numbers.T, strict=True))

    def compute(self) -> dict[str, Tensor]:
        """Return the means of all rows so far; see the class."""
        _, numbers = self.gathered()
        if not len(numbers):
            rank_zero_warn(f"{self.where}no image has an explanation; metrics of texts are NaN")
        return dict(zip(self.columns, numbers.mean(0), strict=True))
