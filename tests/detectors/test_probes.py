"""What a probe fits is what scikit-learn, the published rule or brute force gives, and a checkpoint holds it all."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from test_contract import SMALL, data, trainer
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dfl import detectors
from dfl.data import Transform
from dfl.detectors import Detector, ForestProbe, LinearProbe, NearestNeighbour
from dfl.detectors.fitted import PENALTIES, LogisticHead
from dfl.detectors.probes import neighbour
from dfl.detectors.probes.forest import Forest, Short
from dfl.detectors.probes.neighbour import Neighbours
from dfl.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden" / "univfd_nn.npz"
TINY: dict[str, Any] = {
    **{"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"image_size": 32, "patch_size": 8, "projection_dim": 8},
}
PROBES = (ForestProbe, LinearProbe, NearestNeighbour)
SMALLEST: dict[type[Detector], dict[str, Any]] = {ForestProbe: {"dims": 4, "trees": 5, "steps": 5}}


def clouds(n: int, d: int = 12, apart: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return n features of two overlapping classes, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 2, (n,), generator=generator)
    features = torch.randn(n, d, generator=generator)
    features[:, :3] += apart * label[:, None]
    return features, label


def tower(folder: Path, seed: int = 0) -> str:
    """Save a tiny CLIP tower at random."""
    torch.manual_seed(seed)
    CLIPVisionModelWithProjection(CLIPVisionConfig(**TINY)).save_pretrained(folder)
    return str(folder)


# neighbours


@pytest.fixture(autouse=True)
def _no_gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    """Scores of what is fitted are looked at as numbers."""
    with torch.set_grad_enabled("autoencoder" in request.node.name):
        yield


def bank_of(k: int, features: torch.Tensor, label: torch.Tensor, **words: Any) -> Neighbours:
    head = Neighbours(features.shape[1], k, **words)
    head.fit(features.clone(), label)
    return head


@pytest.mark.parametrize("k", [1, 3, 5, 9])
def test_the_published_rule_and_its_votes(k: int) -> None:
    golden = np.load(GOLDEN)
    features = torch.from_numpy(np.concatenate([golden["real_bank"], golden["fake_bank"]])).float()
    label = torch.arange(len(features)) >= len(golden["real_bank"])
    query = torch.from_numpy(golden["feat"]).float()
    vote = golden["nn1_pred"] if k == 1 else golden[f"nn{k}_vote"]
    score = bank_of(k, features, label.long(), rule="vote")(query)
    assert ((score > 0).numpy() == vote.astype(bool)).all()
    near = bank_of(k, features, label.long())(query)
    assert min(len(score.unique()), len(near.unique())) == len(query)  # AUROC has more to go by than votes
    if k == 1:
        np.testing.assert_allclose(near.numpy(), golden["nn1_dreal"] - golden["nn1_dfake"], atol=1e-4)
        assert ((near > 0).numpy() == vote.astype(bool)).all()


def test_scores_are_differences_of_means_and_votes_outweigh_them() -> None:
    features, label = clouds(150)
    query, _ = clouds(40, seed=1)
    near, share = (bank_of(5, features, label, rule=rule)(query) for rule in ("distance", "vote"))
    mean = [brute_force(query, features[label == value], 5).mean(1) for value in (0, 1)]
    torch.testing.assert_close(near, mean[1] - mean[0])
    cosines = F.normalize(query, dim=1) @ F.normalize(features, dim=1).T
    votes = label[cosines.topk(5, 1).indices].sum(1)
    assert torch.equal(votes, ((share + 1) * 2.5).round().long())
    assert torch.equal(share > 0, votes > 2)


def test_z_scores_are_those_of_the_bank() -> None:
    features, label = clouds(90)
    features = features * torch.arange(1, 13) + 7
    z = (features - features.mean(0)) / features.std(0, correction=0)
    query = clouds(9, seed=1)[0] * torch.arange(1, 13) + 7
    wanted = bank_of(3, z, label)((query - features.mean(0)) / features.std(0, correction=0))
    torch.testing.assert_close(bank_of(3, features, label, z_score=True)(query), wanted)


def brute_force(query: torch.Tensor, bank: torch.Tensor, k: int) -> torch.Tensor:
    cosines = F.normalize(query.double(), dim=1) @ F.normalize(bank.double(), dim=1).T
    return cosines.sort(1, descending=True).values[:, :k].float()


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("faiss", [False, True])
def test_it_finds_what_brute_force_finds_in_any_chunks(k: int, faiss: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if faiss:
        pytest.importorskip("faiss")
    monkeypatch.setattr(neighbour, "ROWS", 7)
    monkeypatch.setattr(neighbour, "IMAGES", 11)
    features, label = clouds(150)
    query, _ = clouds(40, seed=1)
    head = bank_of(k, features, label, faiss=faiss)
    for bank, value in ((head.real, 0), (head.fake, 1)):
        rows = F.normalize(features[label == value], dim=1)
        torch.testing.assert_close(bank[bank[:, 0].argsort()], rows[rows[:, 0].argsort()])
        unit = F.normalize(query, dim=1)
        torch.testing.assert_close(head.nearest(unit, bank), brute_force(query, features[label == value], k))
    whole = head(query)
    torch.testing.assert_close(torch.cat([head(one[None]) for one in query]), whole)
    plain = Neighbours(12, k)
    plain.load_state_dict(head.state_dict())
    torch.testing.assert_close(plain(query), whole)


# forest


def test_a_forest_of_tensors_gives_scikit_learns_probabilities_to_the_bit() -> None:
    features, label = clouds(300, apart=0.5)
    model = RandomForestClassifier(20, random_state=0, min_samples_leaf=3).fit(features.numpy(), label.numpy())
    forest = Forest(features.shape[1])
    forest.fill(model)
    again = Forest(features.shape[1])
    again.load_state_dict(forest.state_dict())
    for other in (features, clouds(500, seed=1)[0]):
        wanted = model.predict_proba(other.numpy())[:, 1]
        assert len(np.unique(wanted)) > 50
        assert np.array_equal(again(other).numpy(), wanted)


@pytest.mark.parametrize("name", ["left", "right", "feature", "root", "value"])
def test_a_forest_in_which_a_walk_would_not_end_is_refused(name: str) -> None:
    features, label = clouds(60)
    forest = Forest(12)
    forest.fill(RandomForestClassifier(2, random_state=0).fit(features.numpy(), label.numpy()))
    state = {key: value.clone() for key, value in forest.state_dict().items()}
    if name == "value":
        state[name] = state[name][:-1]
    elif name in ("left", "right"):
        state[name][1] = 0  # back to the root
    else:
        state[name][0] = 9999
    with pytest.raises(UserError, match="its trees are not those of a forest"):
        Forest(12).load_state_dict(state)


def left_out(head: Short, features: torch.Tensor) -> float:
    """Return the share of z-scored features that no linear map of what the encoder leaves can give."""
    short = torch.cat([head.encode(features).detach(), torch.ones(len(features), 1)], 1)
    scores = (features - features.mean(0)) / features.std(0)
    return float((scores - short @ torch.linalg.lstsq(short, scores).solution).square().mean())


def test_the_autoencoder_keeps_what_features_share_and_is_the_same_every_time() -> None:
    torch.manual_seed(0)
    plane, label = torch.randn(200, 3) @ torch.randn(3, 24), torch.arange(200) % 2
    trained, untrained = Short(24, 3, 2, 200, 0), Short(24, 3, 2, 1, 0)
    one, again, other = (Short(24, 3, 2, 3, seed) for seed in (0, 0, 1))
    for head in (trained, untrained, one, again, other):
        torch.rand(1)  # whatever was drawn before
        head.fit(plane, label)
    assert left_out(trained, plane) < 0.7 * left_out(untrained, plane)
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in one.state_dict().items())
    assert not torch.equal(other.encoder[0].weight, one.encoder[0].weight)


# regression


def test_the_penalty_is_that_of_the_least_log_loss() -> None:
    features, label = clouds(120, d=40, apart=0.3)
    head, plain = LogisticHead(40, "auto"), LogisticHead(40, 1.0)
    head.fit(features, label)
    x = features.double().numpy()
    x = (x - x.mean(0)) / x.std(0)
    model = LogisticRegressionCV(
        Cs=[1 / penalty for penalty in PENALTIES],
        cv=StratifiedKFold(5, shuffle=True, random_state=0),
        scoring="neg_log_loss",
        max_iter=1000,
    ).fit(x, label.numpy())
    plain.penalty = 1 / float(np.ravel(model.C_)[0])
    assert plain.penalty not in (PENALTIES[0], PENALTIES[-1])
    plain.fit(features, label)
    torch.testing.assert_close(head.weight, plain.weight)


# the encoder and the store


class Counted:
    """Counts the images that an encoder sees."""

    def __init__(self, detector: Any) -> None:
        self.images = 0
        detector.network.register_forward_pre_hook(self, with_kwargs=True)

    def __call__(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.images += len(args[0] if args else kwargs["pixel_values"])


@pytest.mark.parametrize("kind", PROBES)
def test_a_folder_is_named_by_the_user_and_not_copied_into_the_checkpoint(
    kind: Callable[..., Any], tmp_path: Path, faces: Path
) -> None:
    folder = tower(tmp_path / "clip")
    detector = kind(folder=folder, output="projection", **SMALLEST.get(kind, {}))  # type: ignore[call-overload]
    assert (detector.input_size, detector.hparams["backbone"]) == (32, None)
    run = trainer(tmp_path)
    run.fit(detector, data(faces))
    run.save_checkpoint(tmp_path / "a.ckpt")
    held = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    assert not [name for name in held if name.startswith("network.")]
    with pytest.raises(UserError, match=r"trained on top of .* give folder"):
        detectors.load(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="this backbone is another one"):
        detectors.load(tmp_path / "a.ckpt", folder=tower(tmp_path / "other", 1))
    opened, image = detectors.load(tmp_path / "a.ckpt", folder=folder), torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(opened(image)["logit"], detector(image)["logit"])


def test_a_second_probe_encodes_nothing(tmp_path: Path, faces: Path) -> None:
    folder, store = tower(tmp_path / "clip"), str(tmp_path / "store")
    words = {"folder": folder, "output": "projection", "store": store}
    first, second = LinearProbe(**words), NearestNeighbour(**words)
    without = NearestNeighbour(folder=folder, output="projection")
    seen = [Counted(detector) for detector in (first, second, without)]
    for detector in (first, second, without):
        source = data(faces)
        source.transform = Transform(augment="none")
        run = trainer(tmp_path)
        run.fit(detector, source)
        run.test(detector, source, verbose=False)
    assert seen[0].images == 36 + 12 + 12
    assert seen[1].images == 0
    assert second.results == without.results
    with torch.no_grad():
        second(torch.rand(1, 3, 32, 32))
    assert seen[1].images == 1


# errors


@pytest.mark.parametrize(
    ("kind", "words", "line"),
    [
        (NearestNeighbour, {"k": 9}, r"model\.k=9 neighbours, and only \d real training images"),
        (ForestProbe, {"dims": 64}, r"model\.dims=64 numbers of 10 training images"),
        (LinearProbe, {"folder": "nowhere"}, "one model: of backbone .* and folder .* leave one out"),
    ],
)
def test_mistakes_are_one_line(kind: Any, words: dict[str, Any], line: str, tmp_path: Path, faces: Path) -> None:
    small = SMALL["LinearProbe"] | words
    with pytest.raises(UserError, match=line):
        trainer(tmp_path).fit(kind(**small), data(faces, 10))


def test_a_penalty_cannot_be_chosen_from_one_image() -> None:
    with pytest.raises(UserError, match="a class has one image"):
        LogisticHead(2, "auto").fit(torch.rand(4, 2), torch.tensor([0, 0, 0, 1]))


def test_clip_of_timm_is_what_is_looked_through_by_default() -> None:
    with torch.device("meta"), detectors.loading.without_weights():
        assert LinearProbe().hparams["backbone"] in timm.list_pretrained("vit_base_patch16_clip_224*")
