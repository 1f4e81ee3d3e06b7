"""Commands in this process, on a small network and sixty images, and the one line of those that fail."""

from pathlib import Path

import pytest

from dfl.__main__ import main
from dfl.cli.app import CLI

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
CONFIG = """# a config
model:
  class_path: VitScl
  init_args: {{backbone: test_vit, pretrained: false, rank: 2, scl_margin: 0.4}}
data:
  class_path: DataModule
  init_args:
    train: {{class_path: Folder, init_args: {{root: {faces}, fractions: {{train: 0.6, val: 0.2, test: 0.2}}}}}}
    test:
      own: {{class_path: Folder, init_args: {{root: {faces}, fractions: {{train: 0.6, val: 0.2, test: 0.2}}}}}}
    transform: {{resize: squash}}
    batch_size: 8
    num_workers: 0
trainer: {{max_epochs: 1, log_every_n_steps: 1}}
"""


def run(*words: str) -> CLI:
    made = main([*words, *QUIET])
    assert isinstance(made, CLI)
    return made


def fails(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    """Run a command that must end with an exit code; return its one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dfl: ")]
    assert len(lines) == 1
    return lines[0]


def train(folder: Path, faces: Path) -> Path:
    """Write ``tiny.yaml`` into a folder and train its run ``tiny`` for one epoch."""
    (folder / "tiny.yaml").write_text(CONFIG.format(faces=faces))
    run("fit", f"--config={folder / 'tiny.yaml'}", f"--root={folder}")
    return folder
