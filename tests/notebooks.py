"""Run the notebooks of docs/recipes on toy images: ``make notebooks``.

The cell with the tag ``settings`` is replaced by one for toy images; cells with the tag ``colab`` are left out, and its
notebook runs twice, as after a disconnect.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from conftest import save_image
from nbclient import NotebookClient

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"
TINY = """model: {class_path: Classifier, init_args: {backbone: test_resnet, pretrained: false, input_size: 32}}
data: {class_path: DataModule, init_args: {transform: {resize: squash}, batch_size: 8, num_workers: 0}}
trainer: {max_epochs: 1, accelerator: cpu}
"""
#: What the settings are for toy images.
SETTINGS = {
    "own_data": "FOLDER, CONFIG = 'photos', 'tiny.yaml'",
    "compare": "FOLDER, ONE, TWO, SEEDS = 'photos', 'tiny.yaml', 'other.yaml', [0]",
    "colab": "DRIVE, ARCHIVE, DATA = 'drive', 'photos.zip', 'data'\n"
    "WHAT = '--config tiny.yaml --data data/folder.yaml --data.num_workers 0'",
}


def run(name: str, folder: Path) -> None:
    """Run a notebook in a folder; a command that fails ends it."""
    notebook = nbformat.read(RECIPES / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if "colab" not in cell.metadata.get("tags", [])]
    for cell in cells:
        if "settings" in cell.metadata.get("tags", []):
            cell.source = SETTINGS[name]
        elif cell.cell_type == "code" and "!" in cell.source.splitlines()[-1][:1]:
            cell.source += "\nassert _exit_code == 0, _exit_code"
    notebook.cells = cells
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    print(f"{name}: {sum(cell.cell_type == 'code' for cell in cells)} cells", flush=True)


def main(names: list[str]) -> None:
    """Run all of them, or those that are named."""
    here = str(Path(__file__).parents[1])
    os.environ |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": here,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    missing = {path.stem for path in RECIPES.glob("*.ipynb")} ^ SETTINGS.keys()
    assert not missing, missing
    for name in names or SETTINGS:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "state").mkdir()
            for i in range(60):
                save_image(folder / "photos" / ("fake" if i % 2 else "real") / f"{i}.png", i, dark=bool(i % 2))
            shutil.make_archive(str(folder / "photos"), "zip", folder / "photos")
            (folder / "tiny.yaml").write_text(TINY)
            (folder / "other.yaml").write_text(TINY.replace("test_resnet", "test_efficientnet"))
            os.environ["XDG_STATE_HOME"] = str(folder / "state")
            for _ in range(2 if name == "colab" else 1):
                run(name, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
