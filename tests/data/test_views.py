"""Views of an image in evaluation: where they lie, and that the centre is what it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import fails, run
from PIL import Image

from dfl.data import DataModule, Folder, Transform
from dfl.data.transforms import VIEWS, Views
from dfl.errors import UserError

SIZE = 32


def picture(height: int = 50, width: int = 71) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("views", ["five", "tiles"])
@pytest.mark.parametrize("words", [{"resize": "none"}, {"resize": "shorter", "crop_ratio": 0.8}, {"resize": "shorter"}])
def test_the_first_is_the_centre_bit_for_bit(views: Views, words: dict[str, Any]) -> None:
    mask = picture()[..., 0]
    image, area = Transform(**words).eval(SIZE)(picture(), mask, ())
    several, same = Transform(**words).eval(SIZE, views)(picture(), mask, ())
    assert several.shape == (1 + len(VIEWS[views]), 3, SIZE, SIZE)
    assert several.dtype == torch.uint8
    assert torch.equal(several[0], image)
    assert area is not None
    assert same is not None
    assert torch.equal(same, area)


def test_views_are_corners_and_tiles_of_the_image() -> None:
    image = picture()
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    tops, lefts = {0.0: 0, 0.5: 9, 1.0: 18}, {0.0: 0, 0.5: 20, 1.0: 39}
    for views in ("five", "tiles"):
        several = Transform(resize="none").eval(SIZE, views)(image, None, ())[0]  # type: ignore[arg-type]
        for view, (y, x) in zip(several[1:], VIEWS[views], strict=True):
            assert torch.equal(view, pixels[:, tops[y] :, lefts[x] :][:, :SIZE, :SIZE])
    assert len({(tops[y], lefts[x]) for y, x in [(0.5, 0.5), *VIEWS["tiles"]]}) == 9
    small = Transform(resize="none").eval(SIZE, "five")(picture(20, 20), None, ())[0]
    assert all(torch.equal(view, small[0]) for view in small)


@pytest.mark.parametrize("words", [{"resize": "pad"}, {"resize": "squash"}])
def test_where_all_of_an_image_is_seen_there_are_no_others(words: dict[str, Any], faces: Path) -> None:
    with pytest.raises(UserError, match=rf"data.views is five, but transform.resize: {words['resize']} shows all"):
        DataModule(Folder(str(faces)), transform=Transform(**words), views="five")
    DataModule(Folder(str(faces)), transform=Transform(**words), views="centre")
    DataModule(Folder(str(faces)), transform=Transform(resize="squash", crop_ratio=0.9), views="five")
    with pytest.raises(UserError, match="data.views is 'center'; did you mean 'centre'"):
        DataModule(Folder(str(faces)), views="center")  # type: ignore[arg-type]


def test_training_never_has_them(faces: Path) -> None:
    data = DataModule(Folder(str(faces)), size=SIZE, num_workers=0, batch_size=3, views="tiles")
    assert "views" not in data.datasets("train")["train"][0]
    data.sets["test"] = dict(data.datasets("test"))
    batch = next(iter(data.test_dataloader()[0]))
    assert batch["views"].shape == (3, 8, 3, SIZE, SIZE)
    assert batch["views"].dtype == torch.uint8
    assert batch["image"].shape == (3, 3, SIZE, SIZE)


def test_an_unreadable_image_leaves_the_others_their_views(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("real/0.png", "fake/0.png", "fake/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture()).save(tmp_path / name)
    (tmp_path / "fake/1.png").write_bytes(b"\x89PNG\r\n\x1a\nno image")
    data = DataModule(Folder(str(tmp_path)), size=SIZE, num_workers=0, batch_size=1, views="five", on_bad="skip")
    data.sets["test"] = dict(data.datasets("test"))
    batches = list(data.test_dataloader()[0])
    assert sorted(len(batch["bad"]) for batch in batches) == [0, 0, 1]
    assert sum("views" in batch and batch["views"].shape[1] == 4 for batch in batches) == 2


def test_predict_takes_them_from_the_command_line(place: Path, faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", str(faces / "fake"), "--name=tiny", "--data.num_workers=0"]
    assert "resize: squash shows all of an image" in fails(capsys, *words, "--data.views=five")
    for i in range(3):  # larger than the network's, so that views differ
        pixels = np.random.default_rng(i).integers(0, 256, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    words[1] = str(place)
    crops = '--data.transform={"resize": "none"}'
    for views in ("centre", "five"):
        made = run(*words, crops, f"--data.views={views}", f"--output={views}.csv")
        assert made.datamodule.views == views
    one, five = ((place / f"{views}.csv").read_text().splitlines() for views in ("centre", "five"))
    assert len(one) == len(five) == 4
    assert one != five
