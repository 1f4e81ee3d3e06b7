"""Three questions in turn: is it real, which family made it, which generator of that family (Guarnera et al. 2024).

                     level 1            level 2                  level 3
    image -> normalize -+-> real? --------> (real)
                        |   fake? --+-> gan? ----------> AttGAN, CycleGAN, ..., StyleGAN2
                        |           +-> diffusion? ----> DALL-E 2, GLIDE, ..., Stable Diffusion

Guarnera, Giudice and Battiato, Level Up the DeepFake Detection (arXiv 2303.00608; ACM TOMM 2024). Each question has a
network of its own; a leaf, which is a generator or the real image, has the probability of the path to it,
p(fake) p(family | fake) p(generator | family). ``flat`` is what it is compared with: one network over all leaves.

Families and generators are names of the data's columns. A fake of a generator that is not in the tree counts at level 2
if its family is, and else at level 1 alone.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn, optim

from dfl.detectors.base import Detector, Losses
from dfl.detectors.hierarchical.tree import Families, OfFile, check, families_of, likeliest
from dfl.detectors.outputs import Outputs
from dfl.errors import UserError
from dfl.losses import binary_cross_entropy, cross_entropy
from dfl.losses.classification import mean_over
from dfl.metrics.classes import Classes
from dfl.metrics.detection import Detection
from dfl.metrics.gathered import Gathered
from dfl.metrics.measures import MEASURES, Measure
from dfl.networks import TIMM, About, backbone_and_view, is_convolutional
from dfl.training.domains import ids

LEVELS = (1, 2, 3)


class HierarchicalOutputs(Outputs, total=False):
    """Outputs with log-probabilities of each level, given the one above it; ``flat`` has those of its leaves alone."""

    given_fake: Tensor  # (N, F) of the families
    given_family: Tensor  # (N, G) of all generators, each within its family
    flat_logit: Tensor  # (N, 1 + G), of ``flat``


class Hierarchical(Detector):
    """Real or fake, then the family, then the generator.

    Args:
        families: Generators by family, names of the columns ``family`` and ``generator``; None takes those of the
            training data, and a checkpoint holds them.
        networks: ``separate``: one for each question that has two answers or more; ``shared``: one, with a head for
            each; ``flat``: one, whose classes are the leaves.
        routing: ``soft``: a leaf has the product of the probabilities on its path. ``hard``: of the families, and of
            the generators in each, the likeliest has all, so that an error of a level is one of those below.
        levels: Which levels are trained; the others' networks stay as they are, for ``--init_from``.
        backbone: timm name of each network.
        pretrained: Start from pretrained weights.
        weights: Where from: a local file, or a timm tag. None takes timm's default.
        timm_args: More arguments of ``timm.create_model``.
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Detector`; by default the size of images is the backbone's own.

    Raises:
        UserError: If a family has no generator, a name stands twice, levels are left out that share a network, or flat
            classes are to be routed.
    """

    about = About("image classifiers", "Guarnera et al.", 2024)

    kinds: ClassVar[dict[str, Any]] = {"families": OfFile, "timm_args": TIMM}
    measures = (
        *(measure for measure in MEASURES if measure.name != "class"),
        Measure("class", "class_logit", "leaf", lambda own, domain: Classes(own.class_names, domain, "leaf")),
        Measure("family", "family_logit", "branch", lambda own, domain: Classes(own.family_names, domain, "branch")),
    )

    def __init__(
        self,
        families: dict[str, list[str]] | None = None,
        networks: Literal["separate", "shared", "flat"] = "separate",
        routing: Literal["soft", "hard"] = "soft",
        levels: tuple[int, ...] = LEVELS,
        backbone: str = "resnet34",
        pretrained: bool = True,
        weights: str | None = None,
        timm_args: dict[str, Any] | None = None,
        optimizer: OptimizerCallable = lambda p: optim.Adam(p, lr=1e-4),
        **kwargs: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **kwargs)
        if not levels or not set(levels) <= set(LEVELS):
            raise UserError(f"model.levels are some of 1, 2 and 3, got {list(levels)}")
        if set(levels) != set(LEVELS) and networks != "separate":
            raise UserError(
                f"model.levels is {list(levels)}, and model.networks={networks} has one network for all levels: train "
                "all of them, or set model.networks=separate"
            )
        if networks == "flat" and routing == "hard":
            raise UserError("model.routing is hard, and model.networks=flat has no path to route: take one of them")
        self.flat, self.hard, self.levels = networks == "flat", routing == "hard", frozenset(levels)
        self._ids: dict[str, tuple[dict[str, int], Tensor]] = {}
        self.build(families or {})

    def build(self, families: Families) -> None:
        """Make the networks for these families; with none there is level 1 alone, until `observe` finds some.

        Raises:
            UserError: If a family has no generator, or a name stands twice.
        """
        check(families)
        self.families = list(families)
        self.generators = [name for names in families.values() for name in names]
        self.sizes = [len(names) for names in families.values()]
        if families:
            self.class_names = ("real", *self.generators)
        self.family_names = ("real", *(self.families or ["fake"]))
        several = [(2, len(self.families))] + [(3, size) for size in self.sizes]
        #: Level and number of outputs of each question that has two answers or more.
        self.questions = [(1, 1), *((level, size) for level, size in several if size > 1)]
        outputs = [size for _, size in self.questions]
        if self.flat:
            outputs = [len(self.class_names) if families else 1]
        elif self.hparams["networks"] == "shared":
            outputs = [sum(outputs)]
        words = self.hparams["timm_args"] or {}
        given = [self.hparams[name] for name in ("backbone", "pretrained", "weights", "input_size")]
        parts = [backbone_and_view(*given, **words | {"num_classes": n}) for n in outputs]
        _, self.input_size, self.normalize = parts[0]
        self.networks = nn.ModuleList(part[0] for part in parts)
        self.channels_last = is_convolutional(self.networks)
        for (level, _), network in zip(self.questions, self.networks, strict=False):
            if level not in self.levels:
                network.requires_grad_(False)
        owner = [place for place, size in enumerate(self.sizes) for _ in range(size)]
        self.register_buffer("family_of_leaf", torch.tensor(owner, dtype=torch.long), persistent=False)
        self.family_of_leaf: Tensor

    def observe(self, sample: Callable[[int], Tensor], counts: Callable[..., dict[Any, int]]) -> None:
        """Take the families of the training data, where none were given; say which fakes are outside of the tree.

        Raises:
            UserError: If a generator has two families there, or no fake has both names.
        """
        super().observe(sample, counts)
        by_id = {column: {v: k for k, v in ids(self.trainer, column).items()} for column in ("family", "generator")}
        found = {
            (by_id["family"].get(family, ""), by_id["generator"].get(generator, "")): n
            for (family, generator), n in counts(("family", "generator"), label=1).items()
        }
        if not self.families:
            self.hparams["families"] = families = families_of(found)
            self.build(families)
        outside = {one: n for one, n in found.items() if one[1] not in self.generators}
        if outside:
            names = ", ".join(sorted({generator or "without a generator" for _, generator in outside})[:4])
            warnings.warn(
                f"{sum(outside.values())} of {sum(found.values())} training fakes are of no generator in "
                f"model.families ({names}), so level 3 leaves them out, and level 2 those without a known family",
                stacklevel=2,
            )

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules, less the networks of levels that are not trained."""
        super().train(mode)
        for (level, _), network in zip(self.questions, self.networks, strict=False):
            if level not in self.levels:
                network.eval()
        return self

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Add where each image belongs, -1 for unknown.

        ``leaf`` (N,) long, its column in ``class_logit``, and ``branch`` (N,) long, that in ``family_logit``.
        """
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        label = batch["label"]
        leaf, branch = (self._places(column, batch[column]) for column in ("generator", "family"))
        if self.families:  # the tree knows the family of a generator, whatever the column says
            branch = torch.where(leaf > 0, self.family_of_leaf[leaf.clamp(min=1) - 1] + 1, branch)
        batch["leaf"], batch["branch"] = (torch.where(label == 1, own, -(label != 0).long()) for own in (leaf, branch))
        return batch

    def _places(self, column: str, number: Tensor) -> Tensor:
        """Return the place in the tree, from 1, of ids of this run's data (N,); -1 for those that it does not have."""
        trainer: Any = self._trainer  # none, of plain tensors
        names = ids(trainer, column)
        if column not in self._ids or self._ids[column][0] != names:
            order = self.class_names if column == "generator" else self.family_names
            ours = {name: place for place, name in enumerate(order)}
            table = torch.full((max(names.values(), default=0) + 2,), -1)
            for name, value in names.items():
                table[value + 1] = ours.get(name, -1)
            self._ids[column] = names, table
        table = self._ids[column][1].to(number.device)
        return table[(number + 1).clamp(0, len(table) - 1)]

    # forward and loss

    def forward(self, image: Tensor) -> HierarchicalOutputs:
        """Return ``logit`` (N,), and log-probabilities ``class_logit`` (N, 1 + G), ``family_logit`` (N, 1 + F)."""
        image = self.normalize(image)
        scores = torch.cat([network(image) for network in self.networks], 1).float()
        if not self.families:
            return {"logit": scores[:, 0]}
        if self.flat:
            leaf = scores.log_softmax(1)
            by_family = [part.logsumexp(1, keepdim=True) for part in leaf[:, 1:].split(self.sizes, 1)]
            out: HierarchicalOutputs = {"flat_logit": scores, "class_logit": leaf}
            out["family_logit"] = torch.cat([leaf[:, :1], *by_family], 1)
            out["logit"] = scores[:, 1:].logsumexp(1) - scores[:, 0]
            return out
        answers = iter(scores.split([size for _, size in self.questions], 1))
        logit = next(answers)
        # a question with one answer has no network, and its answer probability 1
        given_fake, *by_family = (
            next(answers).log_softmax(1) if size > 1 else torch.zeros_like(logit)
            for size in (len(self.families), *self.sizes)
        )
        out = {"logit": logit[:, 0], "given_fake": given_fake, "given_family": torch.cat(by_family, 1)}
        if self.hard:
            given_fake, by_family = likeliest(given_fake), [likeliest(part) for part in by_family]
        real, family = F.logsigmoid(-logit), F.logsigmoid(logit) + given_fake
        out["family_logit"] = torch.cat([real, family], 1)
        out["class_logit"] = torch.cat([real, family[:, self.family_of_leaf] + torch.cat(by_family, 1)], 1)
        return out

    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return the sum of ``level_1``, ``level_2``, ``level_3``, or of ``flat``.

        Each network has the mean of its cross-entropy over the images that belong to its question, 0 for none; level 3
        is the sum over families.

        Args:
            out: Of `forward`.
            batch: With ``leaf`` and ``branch``, see `on_after_batch_transfer`.
        """
        each = self._each(out, batch)
        if "flat" in each:
            weighed = each["flat"][0] * batch["weight"]
            return {"loss": (flat := mean_over(weighed, each["flat"][1])), "flat": flat}
        losses = {"level_1": binary_cross_entropy(out["logit"], batch["label"], batch["weight"])}
        if self.families:
            losses["level_2"] = mean_over(*each["level_2"])
            loss, known = each["level_3"]
            families = range(len(self.families))
            losses["level_3"] = sum(
                (mean_over(loss, known & (batch["branch"] == family + 1)) for family in families),
                start=loss.new_zeros(()),
            )
        losses = {name: value for name, value in losses.items() if int(name[-1]) in self.levels}
        return {"loss": torch.stack([*losses.values()]).sum(), **losses}

    def image_loss(self, out: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the cross-entropy of every image (N,), summed over the levels at which its place is known."""
        return torch.stack([loss.where(known, 0.0) for loss, known in self._each(out, batch).values()]).sum(0)

    def _each(self, out: Any, batch: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the cross-entropy of every image (N,) at each level, and whether (N,) it belongs there."""
        label, leaf, branch = batch["label"], batch["leaf"], batch["branch"]
        if self.flat and self.families:
            return {"flat": (cross_entropy(out["flat_logit"], leaf.clamp(min=0), each=True), leaf >= 0)}
        each = {"level_1": (binary_cross_entropy(out["logit"], label, each=True), label >= 0)}
        if self.families:
            for level, given, place in (("level_2", "given_fake", branch), ("level_3", "given_family", leaf)):
                chosen = out[given].gather(1, place.clamp(min=1)[:, None] - 1)[:, 0]
                each[level] = -chosen, place > 0
        return each

    # what is measured and kept

    def derived_results(self, metrics: Mapping[str, Gathered], results: Mapping[str, float]) -> dict[str, float]:
        """Add the accuracy of each level where the one above it was right, and the share of unknown generators.

        ``level_1_acc`` is over all images, ``level_2_acc`` over fakes of a known family, ``level_3_acc`` over fakes of
        a known generator, with ``level_3_acc_<family>``; ``class_unknown`` is the share of the other fakes. Where no
        fake has a place among the families or generators, their metrics are NaN: real images alone measure neither.
        """
        more = super().derived_results(metrics, results)
        of_family, of_leaf = metrics["family"], metrics["class"]
        if not self.families or not len(of_leaf.gathered()[0]):
            return more
        assert isinstance(of_family, Classes)
        assert isinstance(of_leaf, Classes)
        rows = of_family.rows()
        branch, right = rows["class_label"] - 1, rows["class_logit"][:, 1:].argmax(1) == rows["class_label"] - 1
        more |= {"level_1_acc": results["acc"], "level_2_acc": _share(right[branch >= 0])}
        rows = of_leaf.rows()
        leaf, logit, owner = rows["class_label"] - 1, rows["class_logit"][:, 1:], self.family_of_leaf.cpu()
        logit, leaf = logit[leaf >= 0], leaf[leaf >= 0]
        family = owner[leaf]
        right = logit.masked_fill(owner != family[:, None], -torch.inf).argmax(1) == leaf
        more["level_3_acc"] = _share(right)
        more |= {f"level_3_acc_{name}": _share(right[family == place]) for place, name in enumerate(self.families)}
        for start, placed in (("family_", bool((branch >= 0).any())), ("class_", len(leaf) > 0)):
            more |= {name: math.nan for name in results if name.startswith(start) and not placed}
        detection = metrics["logit"]
        assert isinstance(detection, Detection)
        fakes = int((detection.rows()["label"] == 1).sum())
        return more | ({"class_unknown": 1 - len(leaf) / fakes} if fakes else {})

    def _named_weights(self) -> list[str]:
        """Return none: networks of levels that are not trained now were trained before."""
        return []


def _share(right: Tensor) -> float:
    """Return the share that is true, NaN of none."""
    return float(right.double().mean()) if len(right) else math.nan
