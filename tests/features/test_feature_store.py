"""The store of features: what it keeps is what was encoded, whoever wrote it, and never more than it may hold."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dfl import features as store
from dfl.errors import UserError
from dfl.features import FeatureStore

WEIGHTS = {"w": torch.ones(3)}


class Encode:
    """An encoder of images to vectors, or to maps of a size, which counts what it sees."""

    def __init__(self, size: int = 4) -> None:
        self.images, self.size = 0, size

    def __call__(self, image: Tensor) -> list[Tensor]:
        self.images += len(image)
        flat = image.flatten(1)
        return [flat[:, : self.size], flat[:, -2:].to(torch.bfloat16)]


def images(n: int, seed: int = 0, levels: bool = True) -> Tensor:
    """Return n images of 8 px, by default as they come from 8-bit pixels."""
    generator = torch.Generator().manual_seed(seed)
    if levels:
        return torch.randint(0, 256, (n, 3, 8, 8), generator=generator).float().div_(255)
    return torch.randn(n, 3, 8, 8, generator=generator)


def opened(folder: Path, **words: Any) -> FeatureStore:
    return FeatureStore(folder, lambda: WEIGHTS, **words)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def same(got: list[Tensor], wanted: list[Tensor]) -> bool:
    pairs = zip(got, wanted, strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("levels", [True, False])
@pytest.mark.parametrize("large", [True, False])
def test_features_come_back_in_any_batch_and_process(
    levels: bool, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LARGE", 1 if large else 2**20)
    encode, image = Encode(), images(7, levels=levels)
    first = opened(tmp_path)
    for part in (image[:3], image[3:]):
        assert same(first(part, encode), encode(part))
    encode.images = 0
    assert same(first(image, encode), Encode()(image))  # not written yet, or written alone
    assert len(files(tmp_path)) == (7 if large else 0)
    first.flush()
    assert len(files(tmp_path)) == (7 if large else 1)
    mixed = image[[6, 0, 3, 3]]
    assert same(opened(tmp_path)(mixed, encode), Encode()(mixed))
    assert encode.images == 0
    other = image.clone()
    other[2, 0, 0, 0] += 1 / 255
    assert same(opened(tmp_path)(other, encode), Encode()(other))
    assert encode.images == 1


def test_a_key_does_not_depend_on_the_other_images_of_a_batch(tmp_path: Path) -> None:
    kept, exact, odd = opened(tmp_path), images(2), images(1, levels=False)
    assert kept.keys(torch.cat([exact, odd]))[:2] == kept.keys(exact)
    assert kept.keys(exact[1:]) == kept.keys(exact)[1:]


def test_a_key_is_of_one_encoder_one_precision_and_one_size(tmp_path: Path) -> None:
    image = images(1)
    keys = {opened(tmp_path).keys(image)[0], opened(tmp_path, settings="cls").keys(image)[0]}
    with torch.autocast("cpu", torch.bfloat16):
        keys.add(opened(tmp_path).keys(image)[0])
    keys.add(opened(tmp_path).keys(image.flatten(2)[..., None])[0])
    keys.add(opened(tmp_path).keys(image.double())[0])
    keys.add(FeatureStore(tmp_path, lambda: {"w": torch.zeros(3)}).keys(image)[0])
    assert len(keys) == 6


def test_small_features_are_written_many_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "GATHERED", 10 * (4 * 4 + 2 * 2))
    kept, encode = opened(tmp_path), Encode()
    for seed in range(6):
        kept(images(5, seed), encode)
    assert len(files(tmp_path)) == 3
    monkeypatch.setattr(store, "PATIENCE", -1.0)  # half a minute is over
    kept(images(1, 99), encode)
    assert len(files(tmp_path)) == 4


def test_two_processes_see_what_the_other_wrote(tmp_path: Path) -> None:
    one, two, encode = opened(tmp_path), opened(tmp_path), Encode()
    one(images(3), encode)
    two(images(3, 1), encode)
    one.flush()
    two.flush()
    encode.images = 0
    one(images(3, 1), encode)
    two(images(3), encode)
    assert encode.images == 0
    three = opened(tmp_path)  # both make the same at once: the same file
    three(images(3, 2), encode)
    one(images(3, 2), encode)
    three.flush()
    one.flush()
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize("content", ["", "cut", "zeros", "gone"])
@pytest.mark.parametrize("large", [True, False])
def test_a_broken_file_counts_for_nothing(
    content: str, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LARGE", 1 if large else 2**20)
    kept, encode, image = opened(tmp_path), Encode(), images(1)
    kept(image, encode)
    kept.flush()
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    if content == "gone":
        file.unlink()
    else:
        file.write_bytes({"": b"", "cut": whole[:-3], "zeros": bytes(len(whole))}[content])
    again = opened(tmp_path)
    assert same(again(image, encode), Encode()(image))
    assert encode.images == 2
    again.flush()
    assert file.read_bytes() == whole
    assert same(again(image, encode), Encode()(image))
    assert encode.images == 2
    assert [f.name for f in file.parent.iterdir() if f.is_file()] == [file.name]  # nothing half written is left


@pytest.mark.parametrize("large", [True, False])
def test_what_was_not_read_for_longest_goes_first(large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LARGE", 1 if large else 2**20)
    (tmp_path / "model.safetensors").write_bytes(bytes(9999))  # of the user, who named a folder that is not empty
    encode = Encode()
    for seed in range(6):
        kept = opened(tmp_path)
        kept(images(1, seed), encode)
        kept.flush()
        for file in files(tmp_path):  # an hour passes
            os.utime(file, (0, file.stat().st_mtime - 3600))
    size = len(max(files(tmp_path)[:-1], key=lambda file: file.stat().st_size).read_bytes())
    opened(tmp_path)(images(1, 0), encode)  # the oldest is read
    encode.images = 0
    kept = opened(tmp_path, limit=3.5 * size)
    kept(images(1, 6), encode)
    kept.flush()
    assert encode.images == 1
    assert len(files(tmp_path)) == 1 + 3
    left = opened(tmp_path)
    for seed in (0, 5, 6):
        left(images(1, seed), encode)
    assert encode.images == 1
    assert (tmp_path / "model.safetensors").exists()


def test_errors_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    kept = opened(tmp_path / "file", flag="model.store")
    kept(images(1), Encode())
    with pytest.raises(UserError, match=r"model\.store: cannot write to .*file .*leave model\.store out"):
        kept.flush()
    trained = {"head.weight": nn.Parameter(torch.ones(2))}
    with pytest.raises(UserError, match=r"model\.store keeps .*encoder, and head\.weight is trained"):
        FeatureStore(tmp_path, lambda: trained)


def test_a_foreign_file_of_that_name_is_not_believed(tmp_path: Path) -> None:
    kept, encode, image = opened(tmp_path), Encode(), images(1)
    kept(image, encode)
    kept.flush()
    (file,) = files(tmp_path)
    save_file({"0": torch.zeros(1, 4)}, file)  # without keys
    assert same(opened(tmp_path)(image, encode), Encode()(image))
