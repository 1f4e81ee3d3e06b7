"""The promises that every detector keeps. A new one adds its smallest arguments to ``SMALL``, and is held to all."""

import json
from pathlib import Path
from typing import Any

import keep_configs
import pytest
import pytorch_lightning as pl
import torch
import two_ranks
from forking import on_two_ranks
from pytorch_lightning.callbacks import ModelCheckpoint

from dfl import detectors
from dfl.__main__ import main
from dfl.cli import configs
from dfl.data import DataModule, Folder, Transform
from dfl.detectors import Detector, FittedDetector
from dfl.evaluation import plots
from dfl.training import KeyedRandomness
from dfl.training.tensorboard import TensorBoardInspect

#: The smallest image-text model, as its config.json would say it.
TINY_LLAVA: dict[str, Any] = {
    "model_type": "llava",
    "vision_feature_layer": -1,
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    },
    "text_config": {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    },
}
#: The smallest CLIP.
_LAYER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
TINY_CLIP: dict[str, Any] = {
    "projection_dim": 16,
    "text_config": _LAYER | {"max_position_embeddings": 32},
    "vision_config": _LAYER | {"image_size": 32, "patch_size": 8},
}
#: The smallest version of each detector.
SMALL: dict[str, dict[str, Any]] = {
    "AttentionXception": {"backbone": "test_resnet", "layer": "layer2", "pretrained": False, "input_size": 32},
    "Classifier": {"backbone": "test_resnet", "pretrained": False, "input_size": 32, "timm_args": {}},
    "Dct": {"input_size": 32},
    "DctNetwork": {"backbone": "frank_cnn", "input_size": 32, "noise": "median", "timm_args": {}},
    "DeFake": {"clip": None, "clip_config": TINY_CLIP, "hidden": [32, 16], "image_only": False, "no_caption": "empty"},
    "Ensemble": {
        "members": [
            {"class_path": "Classifier", "init_args": {"backbone": "test_resnet", "input_size": 32}},
            {"class_path": "Classifier", "init_args": {"backbone": "test_vit", "input_size": 48}},
        ],
        "combine": "logistic",
    },
    "FairDisentangle": {"backbone": "test_resnet", "pretrained": False, "input_size": 64, "dim": 32},
    "ForestProbe": {
        **{"backbone": "test_resnet", "pretrained": False, "input_size": 32},
        **{"dims": 4, "trees": 5, "steps": 50},
    },
    "Fusion": {
        **{"backbone": "test_resnet", "pretrained": False, "input_size": 32},
        **{"spectra": [{"size": 16}, {"size": 8, "colour": "rgb", "noise": "median"}], "head": "mlp"},
    },
    "GradCam": {"backbone": "test_resnet", "pretrained": False, "input_size": 32},
    "Hierarchical": {
        **{"backbone": "test_resnet", "pretrained": False, "input_size": 32},
        "families": {"gan": ["a", "b"], "diffusion": ["c", "d"]},
    },
    "LinearProbe": {"backbone": "test_resnet", "pretrained": False, "input_size": 32},
    "Lsda": {
        **{"backbone": "test_resnet", "pretrained": False, "real": "test_resnet", "real_weights": None},
        **{"input_size": 32, "dim": 32, "methods": 1, "near": None, "far": None},
    },
    "NearestNeighbour": {"backbone": "test_resnet", "pretrained": False, "input_size": 32, "k": 3},
    "PatchForensics": {"cut": "block1", "input_size": 32},
    "Resynthesis": {
        **{"input_size": 32, "dim": 4, "depth": 1, "layers": 1, "perceptual": 0.0, "stage": 0},
        **{"sr": "joint", "auxiliary": "denoising", "gradient_scale": 1.0},
        "timm_args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8},
    },
    "Sida": {
        **{"language": None, "language_config": TINY_LLAVA, "mask": "light", "mask_config": None, "dtype": "float32"},
        **{"dim": 32, "train_tower": True, "lora": None, "longest_answer": 16, "whiten": 0},
    },
    "SuperResolution": {"input_size": 32, "dim": 4, "depth": 1, "layers": 1, "perceptual": 0.0},
    "Tuned": {
        **{"backbone": "test_vit", "pretrained": False, "input_size": 32, "tune": "svd", "unit_length": True},
        **{"criterion": {"class_path": "UniformAligned", "init_args": {}}},
    },
    "Ucf": {"backbone": "test_resnet", "pretrained": False, "input_size": 64, "dim": 32},
    "VitScl": {"backbone": "test_vit", "pretrained": False, "input_size": 32, "rank": 2},
}
#: How the batches of a detector are made up that does not take any images.
BATCHES: dict[str, dict[str, Any]] = {"Lsda": {"balance": "pairs", "originals": False}}
#: Trainable parameters that a preset leaves without a gradient on purpose, because the published code does, by name.
DEAD: dict[str, set[str]] = {}
CONFIGS = keep_configs.names()
PARTS = {"train": 0.6, "val": 0.2, "test": 0.2}
LOOKS_AT_FIGURES = True  # every class draws its own once

FITTED = [name for name in SMALL if issubclass(getattr(detectors, name), FittedDetector)]
every_detector = pytest.mark.parametrize("name", SMALL)
every_trained_detector = pytest.mark.parametrize("name", [name for name in SMALL if name not in FITTED])
every_config = pytest.mark.parametrize("yaml", CONFIGS)


def build(name: str) -> Detector:
    pl.seed_everything(0)
    return getattr(detectors, name)(**SMALL[name])


def batch_for(detector: Detector, n: int = 6) -> dict[str, Any]:
    size, label = detector.input_size, torch.arange(n) % 2
    image = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    image[label == 1] //= 2
    names = {k: torch.full((n,), -1) for k in ("group", "family", "video", "identity")}
    return detector.on_after_batch_transfer(
        {
            **names,
            "image": image,
            "label": label,
            "index": torch.arange(n),
            "generator": label,
            "class_label": label,
            "path": [f"{i}.png" for i in range(n)],
            "mask": torch.zeros(n, size, size),
            "has_mask": label == 0,
            "caption": [""] * n,
            "explanation": [""] * n,
            "weight": torch.ones(n),
        },
        0,
    )


def data(faces: Path, limit: int | None = None, name: str = "", **words: Any) -> DataModule:
    source, words = Folder(str(faces), fractions=PARTS, limit=limit), words | BATCHES.get(name, {})
    return DataModule(source, batch_size=4, num_workers=0, transform=Transform(augment="light"), **words)


def trainer(folder: Path, **words: Any) -> pl.Trainer:
    settings: dict[str, Any] = {
        "max_epochs": 2,
        "callbacks": [KeyedRandomness()],
        "enable_checkpointing": False,
    } | words
    return pl.Trainer(
        **settings,
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def test_all_are_covered() -> None:
    classes = {n for n in detectors.__all__ if isinstance(getattr(detectors, n), type)}
    assert set(SMALL) == classes - {"Detector", "FittedDetector", "Baseline"}


@every_detector
def test_one_finite_score_for_each_image(name: str) -> None:
    detector = build(name).eval()
    out = detector(batch_for(detector)["image"])
    assert out["logit"].shape == (6,)
    assert out["logit"].isfinite().all()


@every_trained_detector
def test_every_trainable_parameter_gets_a_gradient(name: str) -> None:
    detector = build(name)
    batch = batch_for(detector)
    losses = detector.loss(detector(batch["image"]), batch)
    losses["loss"].backward()
    assert all(v.ndim == 0 and v.dtype == torch.float32 for v in losses.values())
    idle = {n for n, p in detector.named_parameters() if p.requires_grad and p.grad is None}
    assert idle == DEAD.get(name, set())


@every_trained_detector
def test_learns_one_batch(name: str) -> None:
    detector, rate = build(name), 0.003 if name == "DctNetwork" else 0.01  # at 0.01 its small CNN leaps back and forth
    batch = batch_for(detector)
    optimizer = torch.optim.Adam([p for p in detector.parameters() if p.requires_grad], rate)
    losses = []
    for _ in range(30):
        loss = detector.loss(detector(batch["image"]), batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@every_detector
def test_checkpoint_rebuilds_it_without_pickle(name: str, tmp_path: Path) -> None:
    detector = build(name)
    run = trainer(tmp_path)
    run.strategy.connect(detector)
    run.save_checkpoint(tmp_path / "a.ckpt")
    held = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert json.loads(json.dumps(held["dfl"]))
    again = detectors.load(tmp_path / "a.ckpt")
    assert type(again) is type(detector)
    image = batch_for(detector)["image"]
    assert torch.equal(again(image)["logit"], detector.eval()(image)["logit"])


@every_trained_detector
def test_resume_equals_no_interruption(name: str, tmp_path: Path, faces: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = build(name)
    trainer(tmp_path, callbacks=[KeyedRandomness(), keep], enable_checkpointing=True).fit(whole, data(faces, 20, name))
    for step in (2, 3, 4):  # in the first epoch, on its last batch, in the second
        resumed = build(name)
        file = str(tmp_path / f"step={step}.ckpt")
        trainer(tmp_path).fit(resumed, data(faces, 20, name), ckpt_path=file, weights_only=True)
        state = resumed.state_dict()
        assert [k for k, v in whole.state_dict().items() if not torch.equal(v, state[k])] == []


@pytest.mark.parametrize("name", FITTED)
def test_one_fit_separates_two_classes(name: str, tmp_path: Path, faces: Path) -> None:
    run, detector = trainer(tmp_path), build(name)
    run.fit(detector, data(faces))
    assert run.current_epoch == 1  # whatever max_epochs says
    assert detector.results["val"]["same"]["auroc"] == 1
    again = build(name)
    trainer(tmp_path).fit(again, data(faces))  # the same data, in another order, give the same
    state = again.state_dict()
    assert [k for k, v in detector.state_dict().items() if not torch.equal(v, state[k])] == []


@every_detector
def test_runs_in_bf16_with_float32_scores(name: str, tmp_path: Path, faces: Path) -> None:
    run, detector = trainer(tmp_path, max_epochs=1, precision="bf16-mixed"), build(name)
    run.fit(detector, data(faces, 20, name))
    assert detector.metrics["val"].rows("same")["score"].dtype == torch.float32
    assert torch.isfinite(torch.tensor(detector.results["val"]["same"]["log_loss"]))


def scored(name: str, batch_size: int, faces: Path, folder: Path, **words: Any) -> Detector:
    """Test a small detector on 11 images of the folder."""
    detector, test = build(name), {"a": Folder(str(faces), fractions=PARTS, limit=11)}
    trainer(folder, **words).test(detector, data(faces, test=test, eval_batch_size=batch_size), verbose=False)
    return detector


def test_two_ranks_train_resume_and_equal_one_in_evaluation(tmp_path: Path, faces: Path) -> None:
    """One pair of processes for all detectors, and 11 test images, which two ranks cannot share."""
    on_two_ranks(two_ranks.work, faces, tmp_path)
    ranks = [json.loads((tmp_path / f"trained{rank}.json").read_text()) for rank in (0, 1)]
    for name in SMALL:
        assert ranks[0][name]["parameters"] == ranks[1][name]["parameters"] != ranks[0][name]["start"], name
        for rank in ranks:
            assert rank[name]["resumed"] == rank[name]["whole"], name
        if name in FITTED:
            alone = build(name)
            trainer(tmp_path).fit(alone, data(faces, 40))
            fitted = torch.load(tmp_path / f"{name}_fitted.pt", weights_only=True)
            for key, value in alone.state_dict().items():  # other images share a batch, so features round otherwise
                if key != "threshold":
                    assert (fitted[key] - value).double().norm() <= 0.05 * value.double().norm(), (name, key)
        results = scored(name, 1, faces, tmp_path).results["test"]
        assert json.dumps(results) == (tmp_path / f"{name}.json").read_text(), name
        # other images share a batch of 4 there, which a processor may round otherwise; the scores lie further apart
        rows = scored(name, 4, faces, tmp_path).metrics["test"].rows("a")
        theirs = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert all(torch.equal(rows[column], theirs[column]) for column in ("index", "label"))
        assert (rows["score"] - theirs["score"]).abs().max() <= 0.1 * rows["score"].std(), name


def typed(flag: str, values: dict[str, Any]) -> list[str]:
    """Return words that set values below a flag."""
    return [f"--{flag}.{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]


def shrunk(name: str) -> list[str]:
    """Return the words that make a config of a class as small as ``SMALL`` has it."""
    return typed("model", SMALL[name])


def of_class(yaml: str) -> str:
    """Return the class of a config's detector."""
    return next(n for n in SMALL if f"class_path: {n}\n" in Path(configs.find(yaml)).read_text())


def words_for(yaml: str, faces: Path) -> list[str]:
    """Return the words that run a config on a few small images."""
    batches = BATCHES.get(of_class(yaml), {})
    data = ["--data=data/folder.yaml", f"--data.train.root={faces}", "--data.batch_size=4", "--data.num_workers=0"]
    return [
        f"--config={yaml}",
        "--config=trainer/smoke.yaml",
        *data,
        *typed("data", batches),
        "--name=a",
        "--init_from=null",
    ]


@pytest.mark.parametrize("yaml", {of_class(n): n for n in CONFIGS if "/" not in n}.values())  # the last of each class
def test_every_class_runs_every_verb(
    yaml: str, faces: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_for(yaml, faces)
    monkeypatch.setattr(plots, "to_png", lambda _: b"")  # figures are drawn once: for TensorBoard, by the test
    with monkeypatch.context() as patch:
        patch.setattr(TensorBoardInspect, "_draw", lambda *_: None)
        main(["fit", *words, *shrunk(of_class(yaml))])
        cli = main(["validate", *words, "--ckpt_path=last"])
    assert 0 <= cli.model.results["val"]["same"]["auroc"] <= 1
    cli = main(["test", *words, "--ckpt_path=last"])
    assert 0 <= cli.model.results["test"]["same"]["auroc"] <= 1
    main(
        [
            "predict",
            str(faces / "real"),
            "--name=a",
            "--ckpt_path=last",
            "--output=scores.csv",
            "--config=trainer/smoke.yaml",
            "--data.num_workers=0",
        ]
    )
    lines = Path("scores.csv").read_text().splitlines()
    assert lines[0].split(",")[:4] == ["path", "score", "logit", "probability"]
    assert len(lines) == 31


@every_config
def test_config_at_full_size_is_as_it_was(yaml: str) -> None:
    """A new config is added to the table by ``python tests/keep_configs.py``."""
    assert keep_configs.facts(yaml) == keep_configs.table()[yaml]
