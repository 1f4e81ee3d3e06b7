"""The recipes name configs and verbs that exist, and are what they claim to be: a notebook, shell scripts."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from dfl.cli import configs

RECIPES = Path(__file__).parent.parent / "docs" / "recipes"


NOTEBOOKS = sorted(path.name for path in RECIPES.glob("*.ipynb"))


def code(notebook: str) -> list[str]:
    cells = json.loads((RECIPES / notebook).read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_one_of_five_cells(name: str) -> None:
    notebook = json.loads((RECIPES / name).read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert (notebook["nbformat"], notebook["nbformat_minor"], len(cells)) == (4, 5, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert all(cell["outputs"] == [] for cell in cells)
    assert [cell["metadata"].get("tags") for cell in cells].count(["settings"]) == 1


def test_every_config_exists_and_every_run_resumes() -> None:
    texts = {path.name: path.read_text() for path in RECIPES.glob("*.sh")}
    texts |= {name: "\n".join(code(name)) for name in NOTEBOOKS}
    for name, text in texts.items():
        for config in re.findall(r"--config[ =]([\w/]+\.yaml)|\"([\w/]+\.yaml)\"", text):
            configs.find(max(config)) if max(config) != "compare.yaml" else None
        if name != "compare.ipynb":
            assert re.search(r"dfl\s+fit[^!]*--ckpt_path last", text), name
            assert "--root" in text or name == "own_data.ipynb"


@pytest.mark.parametrize("script", [path.name for path in RECIPES.glob("*.sh")])
def test_a_preempted_job_is_queued_again_and_a_failed_one_is_not(script: str, tmp_path: Path) -> None:
    """With a `srun` that ends with 75 when it is told to stop, and one that fails by itself."""
    for name, text in {
        "srun": 'trap "exit 75" USR1 TERM; [ "$FAIL" ] && exit 3\n'
        "while grep -qs '^State:.[RD]' /proc/$PPID/status; do sleep 0.01; done\n"  # until the script waits for it
        "kill -USR1 $PPID; while :; do sleep 0.01; done",
        "scontrol": 'echo scontrol "$@"',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"JOB_ID": "7", "SUBMIT_DIR": ".", "NTASKS_PER_NODE": "1", "JOB_NUM_NODES": "1", "JOB_NODELIST": "a"}
    base = {"PATH": f"{tmp_path}:/usr/bin:/bin"} | {f"SLURM_{key}": value for key, value in slurm.items()}
    stopped, failed = (
        subprocess.run(["bash", RECIPES / script], env=base | more, capture_output=True, text=True, check=False)
        for more in ({}, {"FAIL": "1"})
    )
    assert (stopped.returncode, failed.returncode) == (75, 3)
    assert "scontrol requeue 7" in stopped.stdout
    assert "requeue" not in failed.stdout
