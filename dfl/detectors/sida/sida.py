"""SIDA: Huang et al., Social Media Image Deepfake Detection, Localization and Explanation (CVPR 2025).

    image -> vision tower -> language model:  [prompt with image tokens] [CLS] The image is tampered [SEG] Its ... [END]
                                                                        |                         |     |
                                              hidden states:    detection head               projection text
                                                                        |                         |
                                                                 class logits ---- fusion ------> + ---> mask decoder

The answer is read from one pass. Attention is causal, so the class, read where [CLS] is predicted, sees the prompt
alone, whatever answer follows; and the [SEG] of the answer "tampered" is what the model would come to by itself if it
said tampered. So the mask of the free run is that of the given answer where the class says tampered, and nothing
elsewhere.

One decoded image, brought to the mask side's size, is the language side's too, downscaled with antialiasing; each side
normalises it its own way. The losses of a batch are weighed image by image, so batches are mixed as they come.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from safetensors.torch import save_file
from torch import Tensor, nn

from dfl.detectors.base import Detector, Losses
from dfl.detectors.outputs import Outputs
from dfl.detectors.sida.building import CONFIG, language_side, mask_decoder
from dfl.detectors.sida.losses import TAMPERED, classes, mean_over_ranks, sida_bce, sida_dice
from dfl.detectors.sida.masks import Sam, SidaFusion
from dfl.detectors.sida.official import official
from dfl.detectors.sida.text import IGNORED, Encoded, answer, parse
from dfl.detectors.sida.trained import choose_trained
from dfl.errors import UserError
from dfl.metrics import inside
from dfl.networks import About, Normalize, merge_lora, whiten_patch_embed
from dfl.networks.normalize import IMAGENET
from dfl.runs.plain import Sentences
from dfl.training.sharded import FullyShardStrategy

#: Logit of a mask that is all real.
NOTHING = -20.0


class Sida(Detector):
    """A vision-language model that tells real, synthetic and tampered apart, masks and explains.

    Args:
        language: Image-text model of transformers: hub name or folder, see ``families.py``. None: a random one.
        language_config: What its config.json holds, to build a random one, or to count without weights.
        corpus: Sentences that the tokenizer of a random model is trained on.
        mask: ``light``, or a SAM or SAM 2 of transformers by hub name or folder; None: a random SAM.
        mask_config: What SAM's config.json holds, to build a random one; of ``light`` the argument ``hidden``.
        cache: Folder that keeps the image embeddings of the frozen SAM, for fit, validate and test; None encodes each
            image every time.
        cache_gb: Gigabytes that it may hold; what was not read for longest goes first.
        input_size: Side of the images in pixels; by default that of the mask side, or the language side's own.
        view_size: Side of what the language side sees; by default that of its tower (Qwen: 448).
        dtype: Of the language model's weights. LoRA and tokens beside it are held in float32 whatever it is; without
            ``lora``, and with ``train_tower``, take ``float32``.
        four_bit: The frozen language model in 4 bits, through bitsandbytes (``pip install 'dfl[sida]'``).
        lora: LoRA on the language model: ``rank``, ``alpha``, ``dropout``, ``targets`` (ends of names of its layers).
            None trains all of the language model and the projector.
        train_tower: Train the vision tower in full.
        tokens: What is trained of the embeddings beside LoRA: ``rows`` of the new tokens, or ``all`` as in the official
            code, where the output layer stays as it is.
        whiten: Number of training images whose patches the tower's patch embedding whitens before the first step; a
            start for a random tower. 0 leaves it as it is.
        fusion: ``two_key``, or ``official`` where the class has no say in the mask, see `SidaFusion`.
        dim: Of the embedding that prompts ``light``; SAM has its own.
        feature: ``predicting`` reads the position before a token, as the official code, ``token`` that of the token.
        class_weight: Weight of the detection loss.
        mask_weight: Weight of the mask loss.
        bce_weight: Weight of cross-entropy within it.
        dice_weight: Weight of DICE within it.
        text_weight: Weight of the text loss; 0 is stage 1, where answers have no explanation.
        generate: Write the answer in test and predict.
        text_model: Sentence encoder that measures how alike texts are: hub name or folder; None leaves that out.
        longest_answer: Most tokens of an answer.
        checkpointing: Recompute activations in the backward pass, to save memory.
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Detector`.
    """

    about = About("vision-language models", "Huang et al.", 2025)

    mean, std = IMAGENET  # of SAM, SAM 2 and the small decoder
    places = ("language", "mask", "cache", "text_model")
    bases = shaping = ("language", "mask")
    kinds: ClassVar[dict[str, Any]] = {
        "language_config": CONFIG,
        "mask_config": CONFIG | {"hidden": int},
        "mask": Literal["light", None],
        "corpus": Sentences,
        "lora": {"rank": int, "alpha": float, "dropout": float, "targets": list[str]},
    }

    def __init__(
        self,
        language: str | None = None,
        language_config: dict[str, Any] | None = None,
        corpus: list[str] | None = None,
        mask: str | None = "light",
        mask_config: dict[str, Any] | None = None,
        cache: str | None = None,
        cache_gb: float = 1000.0,
        input_size: int | None = None,
        view_size: int | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        four_bit: bool = False,
        lora: dict[str, Any] | None = None,
        train_tower: bool = False,
        tokens: Literal["rows", "all"] = "rows",
        whiten: int = 0,
        fusion: Literal["two_key", "official"] = "two_key",
        dim: int = 256,
        feature: Literal["predicting", "token"] = "predicting",
        class_weight: float = 1.0,
        mask_weight: float = 1.0,
        bce_weight: float = 1.0,
        dice_weight: float = 1.0,
        text_weight: float = 0.0,
        generate: bool = True,
        text_model: str | None = None,
        longest_answer: int = 256,
        checkpointing: bool = False,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(input_size, optimizer, **kwargs)
        if four_bit and (lora is None or train_tower):
            raise UserError("model.four_bit freezes the language model: it needs model.lora, and train_tower=false")
        if whiten and language:
            raise UserError("whiten is a start without pretrained weights: take model.whiten=0")
        if cache and mask == "light":
            raise UserError("model.cache keeps embeddings of a frozen SAM, and model.mask is light: leave one out")
        self.language, self.named_language, self.family, self.conversation = language_side(self.hparams)
        family, width = self.family, int(self.language.config.get_text_config().hidden_size)
        choose_trained(
            self.language, family, self.conversation.new, lora, train_tower, tokens == "all", text_weight > 0
        )
        if checkpointing:
            self.language.gradient_checkpointing_enable({"use_reentrant": False})
        self.masks, self.named_mask = mask_decoder(mask, mask_config, family.width, dim)
        wanted = self.masks.side if isinstance(self.masks, Sam) else family.side
        if isinstance(self.masks, Sam) and input_size not in (None, wanted):
            raise UserError(f"model.input_size is {input_size}, and this SAM sees images of {wanted}: leave it out")
        self.input_size = input_size or wanted
        c = self.masks.dim
        self.detect = nn.Sequential(nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, 3))
        self.project = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, c))
        self.fusion = SidaFusion(c, mode=fusion)
        self.normalize_view = Normalize(*family.normalisation)

        self.whiten, self.generates, self.text_model, self.cache = whiten, generate, text_model, cache
        self.weights = (class_weight, mask_weight, bce_weight, dice_weight, text_weight)
        self.train()  # what transformers loads is in evaluation, where it would not checkpoint; Lightning keeps modes

    # building

    def setup(self, stage: str) -> None:
        """Open the cache.

        Raises:
            UserError: If the strategy cuts weights among devices, and there is a cache (their hash would be of a part),
                or they are in 4 bits.
        """
        super().setup(stage)
        cuts = isinstance(self.trainer.strategy, FullyShardStrategy)
        for name in ("cache", "four_bit"):
            if cuts and self.hparams[name]:
                raise UserError(
                    f"model.{name} does not go with FullyShardStrategy, which cuts all weights: leave one out"
                )
        if isinstance(self.masks, Sam):
            # not in predict: a checkpoint that was carried elsewhere would fill a folder that nobody asked for there
            self.masks.keep_embeddings(self.cache if stage != "predict" else None, self.hparams["cache_gb"])

    def teardown(self, stage: str) -> None:
        """Write what the cache has not written yet."""
        if isinstance(self.masks, Sam) and self.masks.cache is not None:
            self.masks.cache.flush()

    def observe(self, sample: Callable[[int], Tensor], counts: Callable[..., dict[int, int]]) -> None:
        """Whiten the patch embedding."""
        super().observe(sample, counts)
        if self.whiten:
            tower = self.family.part(self.language, "tower")
            first = next(m for m in tower.modules() if isinstance(m, nn.Conv2d))
            whiten_patch_embed(first, self.view(sample(self.whiten).to(self.device)))

    # what it does

    def view(self, image: Tensor) -> Tensor:
        """Return what the language side sees of images (N, 3, S, S) in [0, 1]: smaller, and normalised its way."""
        side = self.family.side
        if image.shape[-1] != side:
            image = F.interpolate(image, (side, side), mode="bilinear", antialias=True, align_corners=False)
        return self.normalize_view(image)

    def forward(self, image: Tensor) -> Outputs:
        """Return ``logit`` (N,), ``class_logit`` (N, 3), ``mask_logit`` (N, h, w) and ``teacher_forced_mask_logit``.

        ``mask_logit`` is the free run's in evaluation: all real where the class is not tampered. In training both are
        the one whose answer is given.
        """
        return self._free(self._read(image, [answer(TAMPERED)] * len(image))[0])

    def outputs(self, batch: dict[str, Any]) -> Outputs:
        """Return in training the outputs with each image's own answer, which ``text_loss`` is of.

        In evaluation those of `forward`, and in test and predict ``text``, the explanation that is written for each
        image (all that was written, where that is no answer), and ``generated_text``.
        """
        if self.training:
            return self._taught(batch)
        image = batch["image"]
        out, _, seen = self._read(image, [answer(TAMPERED)] * len(image))
        free = self._free(out)
        if not self.generates or self.trainer.validating or self.trainer.training or self.trainer.sanity_checking:
            return free
        written = self.write(seen, len(image))
        return free | {"text": [parse(text)[1] for text in written], "generated_text": written}

    def view_outputs(self, batch: dict[str, Any]) -> Outputs:
        """Return the outputs for a further view, without a text, which would be written for nothing."""
        return self(batch["image"])

    def _read(self, image: Tensor, answers: list[str]) -> tuple[Any, Encoded, Any]:
        """Return class and mask, the sequences, and the images as they were seen; one pass with answers given."""
        encoded = self.conversation.encode(answers, image.device)
        seen = self.family.see(self.language, self.view(image))
        hidden = self.family.hidden(self.language, encoded.ids, encoded.attention, self.conversation.start, seen)
        row = torch.arange(len(image), device=image.device)
        kind = next(self.detect.parameters()).dtype
        class_logit = self.detect(hidden[row, encoded.cls].to(kind)).float()
        prompt = self.fusion(class_logit.to(kind), self.project(hidden[row, encoded.seg].to(kind)))
        out = {
            "class_logit": class_logit,
            "logit": class_logit[:, 1:].logsumexp(1) - class_logit[:, 0],
            "teacher_forced_mask_logit": self.masks(image, seen.features, prompt).float(),
            "hidden": hidden,
        }
        return out, encoded, seen

    def _free(self, out: Any) -> Outputs:
        forced = out["teacher_forced_mask_logit"]
        out.pop("hidden")
        if self.training:
            return out | {"mask_logit": forced}
        tampered = out["class_logit"].argmax(1) == TAMPERED
        return out | {"mask_logit": forced.where(tampered[:, None, None], NOTHING)}

    def _taught(self, batch: dict[str, Any]) -> Outputs:
        kinds, explained = classes(batch).tolist(), batch["explanation"]
        texts = explained if self.weights[-1] else [""] * len(kinds)
        # a fake of unknown kind is read as a tampered one; its mask and text weigh nothing
        answers = [answer(k if k >= 0 else TAMPERED, e) for k, e in zip(kinds, texts, strict=True)]
        out, encoded, _ = self._read(batch["image"], answers)
        if self.weights[-1]:
            weight = torch.tensor([float(bool(e) and k >= 0) for e, k in zip(texts, kinds, strict=True)])
            out["text_loss"] = self._text_loss(out["hidden"], encoded, weight.to(out["logit"]))
        return self._free(out)

    def _text_loss(self, hidden: Tensor, encoded: Encoded, weight: Tensor) -> Tensor:
        """Return the mean next-token cross-entropy over the answers of images with an explanation; 0 without any."""
        target = encoded.target[:, 1:]
        asked = target != IGNORED
        logits = self.language.get_output_embeddings()(hidden[:, :-1][asked]).float()
        each = weight[:, None].expand_as(target)[asked]
        loss = F.cross_entropy(logits, target[asked], reduction="none")
        return (loss * each).sum() / mean_over_ranks(each.sum()).clamp(min=1)

    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return ``loss`` and its parts ``det``, ``mask``, ``bce``, ``dice``, and ``txt`` where text is learned."""
        det_weight, mask_weight, bce_weight, dice_weight, text_weight = self.weights
        kind, class_logit = classes(batch), out["class_logit"]
        each = F.cross_entropy(class_logit, kind.clamp(min=0), reduction="none")
        some_fake = -F.logsigmoid(out["logit"])  # of a fake nobody knows more of, any kind is right
        det = each.where(kind >= 0, some_fake).mean()
        weight = ((kind == TAMPERED) & batch["has_mask"]).float()
        mask = batch["mask"].float()
        forced = out["teacher_forced_mask_logit"].float()
        logit = F.interpolate(forced[:, None], mask.shape[1:], mode="bilinear", align_corners=False)[:, 0]
        count = mean_over_ranks(weight.sum())
        shown = inside(batch)
        bce = sida_bce(logit, mask, weight, count, shown)
        dice = sida_dice(logit, mask, weight=weight, count=count, shown=shown)
        both = bce_weight * bce + dice_weight * dice
        losses = {"det": det, "mask": both, "bce": bce, "dice": dice}
        total = det_weight * det + mask_weight * both
        if "text_loss" in out:
            losses["txt"] = out["text_loss"]
            total = total + text_weight * out["text_loss"]
        return {"loss": total, **losses}

    def derived_results(self, metrics: Mapping[str, Any], results: Mapping[str, float]) -> dict[str, float]:
        """Return the official code's misnomers, see `official`."""
        if "forced_mask_ciou" in results and "class_acc" in results:
            return official(metrics["class"].confusion(), results["forced_mask_ciou"])
        return {}

    @torch.no_grad()
    def write(self, seen: Any, n: int) -> list[str]:
        """Return the answers that it writes of n images by itself, the most likely token each time."""
        talk = self.conversation
        ids = torch.tensor([talk.prompt] * n, device=seen.tokens.device)
        words = {"max_new_tokens": talk.longest_answer, "pad_token_id": talk.pad}
        words["eos_token_id"] = talk.tokenizer.eos_token_id
        return talk.decode(self.family.generate(self.language, ids, talk.start, seen, **words))

    def train(self, mode: bool = True) -> "Sida":
        """Switch to training; what is frozen stays in evaluation."""
        super().train(mode)
        if mode:
            frozen: list[nn.Module] = [self.masks.sam.vision_encoder] if isinstance(self.masks, Sam) else []
            if not self.hparams["train_tower"]:
                frozen.append(self.family.part(self.language, "tower"))
            for part in frozen:
                part.eval()
        return self

    # saving

    def _named_weights(self) -> list[str]:
        """Return the frozen weights of the models that are there by name."""
        named = tuple(p for p, yes in (("language.", self.named_language), ("masks.", self.named_mask)) if yes)
        every = self.named_parameters(remove_duplicate=False)
        return [n for n, p in every if not p.requires_grad and n.startswith(named)]

    def _backbone_name(self) -> str:
        return " and ".join(str(n) for n in (self.hparams["language"], self.hparams["mask"]) if n and n != "light")

    def export(self, folder: str | Path) -> None:
        """Write models of transformers with nothing left to merge.

        ``language`` holds model and tokenizer for transformers, LoRA and new rows added in; ``mask`` a SAM for
        transformers; ``heads.safetensors`` the rest, by the names that the detector has for it.

        Raises:
            UserError: If the language model is in 4 bits: what LoRA adds would be rounded to them.
        """
        if self.hparams["four_bit"]:
            raise UserError(
                "export adds LoRA to the weights, and with model.four_bit these have 4 bits, so most of it would be "
                "rounded away: use the checkpoint as it is, or train without four_bit"
            )
        folder = Path(folder)
        merged: Any = merge_lora(self.language)
        merged.save_pretrained(folder / "language")
        self.conversation.tokenizer.save_pretrained(folder / "language")
        if isinstance(self.masks, Sam):
            self.masks.sam.save_pretrained(folder / "mask")
        heads = {k: v for k, v in self.state_dict().items() if not k.startswith(("language.", "masks.sam."))}
        save_file({k: v.detach().cpu().contiguous() for k, v in heads.items()}, folder / "heads.safetensors")
