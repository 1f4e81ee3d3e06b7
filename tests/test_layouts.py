"""One config that trains through three layouts and tests through five, as a user would write and run it."""

import json
from pathlib import Path

from toy_layouts import lay_out, rows_of

from dfl.__main__ import main
from dfl.data.toy import make

MODEL = [
    *("--model", "Classifier", "--model.backbone", "test_resnet", "--model.pretrained", "false"),
    *("--model.input_size", "32", "--data.batch_size", "8", "--data.num_workers", "0", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
]


def test_domains_of_five_layouts_in_one_config(tmp_path: Path) -> None:
    toy = tmp_path / "toy"
    make(toy, n=160, size=32, workers=1, progress=False)
    data = str(lay_out(toy, tmp_path / "sets"))
    main(["fit", "--data", data, *MODEL, "--trainer.max_epochs", "1", "--name", "l"])
    main(["test", "--name", "l", "--ckpt_path", "best", "--trainer.enable_progress_bar", "false"])
    found = json.loads(sorted(tmp_path.glob("lightning_logs/l/*/results.json"))[-1].read_text())
    counted = {name: (row["n_real"], row["n_fake"]) for name, row in found["results"].items() if name != "mean"}

    def classes(domain: str, kept: tuple[str, ...] = ("0", "1", "2")) -> tuple[int, int]:
        rows = [r for r in rows_of(toy, domain, "test") if r["class_label"] in kept]
        return sum(r["label"] == "0" for r in rows), sum(r["label"] == "1" for r in rows)

    assert counted == {
        "sid_set": classes("same"),
        "deepfakebench": classes("same"),
        "genimage": classes("unseen_generator"),
        "imdl_benco": classes("same", ("0", "2")),
        "spai": classes("other_camera"),
    }
    assert all(sum(pair) > 0 for pair in counted.values())
    trained = [len(rows_of(toy, "same", split)) for split in ("train", "val")]
    assert found["images"]["sid_set"]["unreadable"] == {}
    main(["data", "check", data, "-o", str(tmp_path / "check"), "--progress", "false", "--workers", "1"])
    places = json.loads((tmp_path / "check" / "check.json").read_text())["places"]
    assert sum(sum(places[f"train{i}/train"].values()) for i in range(3)) == trained[0]
    assert sum(places["forensynths/val"].values()) == trained[1]
