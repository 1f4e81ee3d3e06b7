"""Models at random that stand in for those of users."""

import hashlib
from pathlib import Path

import pytest

from dfl.data.toy import main
from dfl.errors import UserError


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*.safetensors"))
    assert len(files) == 4  # UNet, VAE, text encoder, captioner
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_toy_models_are_the_same_each_time_and_made_once(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("diffusers")
    main(["--models"])
    main(["--models", "--root", "again"])
    assert digest(Path("data/toy_models")) == digest(Path("again"))
    said = capsys.readouterr()
    assert "data/toy_models" in said.out
    assert "Writing" not in said.err
    before = [path.stat().st_mtime_ns for path in sorted(Path("again").rglob("*"))]
    main(["--models", "--root", "again"])
    assert before == [path.stat().st_mtime_ns for path in sorted(Path("again").rglob("*"))]
    Path("other").mkdir()
    Path("other/mine.txt").write_text("")
    with pytest.raises(UserError, match="other"):
        main(["--models", "--root", "other"])
