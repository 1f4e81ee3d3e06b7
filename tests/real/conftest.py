"""Acceptance on real images and weights, which are not part of the project: ``make real REAL=DIR``, not ``make test``.

    DIR/faces/{real,fake}              DIR/faces_split.csv: path, label, split
    DIR/faces_mobilestylegan/fake      fakes of a generator that is not in faces/
    DIR/photos/{train,val}
    DIR/weights, or $REAL_WEIGHTS      pretrained weights

What is not there is not run, and says so. A test asks for `real`, the folder, and finds weights by `weights`.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

#: Absolute now: every test changes into a folder of its own.
REAL = Path(os.path.abspath(os.environ["REAL"])) if os.environ.get("REAL") else None
WEIGHTS = [Path(os.path.abspath(place)) for place in [os.environ.get("REAL_WEIGHTS")] if place]


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real images."""
    if REAL is None:
        pytest.skip("not run: make real REAL=DIR, see tests/real/conftest.py")
    assert REAL.is_dir(), f"REAL={REAL} is no folder"
    return REAL


@pytest.fixture(scope="session")
def weights(real: Path) -> Callable[[str], str]:
    """Return where weights are, a file or a folder, by name."""

    def find(name: str) -> str:
        places = [*WEIGHTS, real / "weights"]
        found = next((place / name for place in places if (place / name).exists()), None)
        if found is None:
            pytest.skip(f"not run: no {name} in {' or '.join(map(str, places))} (REAL_WEIGHTS names another folder)")
        return str(found)

    return find
