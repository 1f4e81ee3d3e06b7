"""``dfl doctor``: what this machine has of what dfl needs, on one screen; with ``--config``, of what a run needs.

Nothing is downloaded, written or trained, and no weights are loaded.
"""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

import dfl
from dfl.errors import UserError, first_line

USAGE = """usage: dfl doctor [--config NAME.yaml] [--data NAME.yaml] [--root DIR] [--model.KEY value] [--data.KEY value]

{doc}
It ends with 2 where something is missing."""
#: Libraries whose versions decide most.
SHOWN = ("torch", "torchvision", "pytorch-lightning", "timm", "transformers", "peft", "numpy")
#: What a line begins with where something is missing.
MISSING = "MISSING"
#: A line: what it is about, and what is said of it.
Line = tuple[str, str]


def main(argv: list[str]) -> None:
    """Print one line for each thing that dfl needs, and that the run of these words would need, as ``fit`` takes them.

    Raises:
        UserError: If a library is missing or of another version, or weights or data of the run are not there.
    """
    if {"-h", "--help"} & {*argv}:
        print(USAGE.format(doc=(__doc__ or "").strip()))
        return
    missing = 0
    for lines in (_versions(), _devices(), _extras(), _run(argv)):
        for what, said in lines:
            print(f"{what:10}{said}", flush=True)
            missing += said.startswith(MISSING)
    if missing:
        raise UserError(f"{missing} {'things are' if missing > 1 else 'thing is'} missing, see {MISSING} above")


def _versions() -> Iterator[Line]:
    """Yield versions of dfl, Python and libraries, and what of the libraries is not as it must be."""
    yield "dfl", f"{dfl.__version__} in {Path(dfl.__file__).parent}"
    yield "Python", f"{platform.python_version()} in {sys.prefix}, {platform.platform(terse=True)} {platform.machine()}"
    yield "libraries", ", ".join(f"{name} {_version(name) or 'none'}" for name in SHOWN)
    for wanted, extra in _requirements():
        have = _version(wanted.name)
        if not extra and not (have and wanted.specifier.contains(have, prereleases=True)):
            yield "", f"{MISSING} {wanted.name}{wanted.specifier}: {have or 'not'} installed; pip install '{wanted}'"


def _devices() -> Iterator[Line]:
    """Yield what computes, and how much memory it has."""
    try:
        import torch
    except Exception as error:  # a broken installation raises many kinds
        yield "devices", f"{MISSING} torch cannot be imported: {first_line(error)}"
        return
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {_size(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))} of memory"
    yield "CPU", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()}{memory}"
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        half = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        name = torch.cuda.get_device_name(number)
        yield f"GPU {number}", f"{name}, {_size(free)} of {_size(total)} free, {half}-mixed"
    if torch.backends.mps.is_available():
        yield "GPU", "of an Apple chip (mps)"
    elif not torch.cuda.is_available():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for the CPU alone"
        yield "GPU", f"none that torch sees; torch was built {built}"


def _extras() -> Iterator[Line]:
    """Yield the extras that are installed, and what the others lack."""
    lacks: dict[str, list[str]] = {}
    for wanted, extra in _requirements():
        if extra and wanted.name != "dfl":
            have = _version(wanted.name)
            fits = have is not None and wanted.specifier.contains(have, prereleases=True)
            lacks.setdefault(extra, []).extend([] if fits else [wanted.name])
    here = sorted(extra for extra, names in lacks.items() if not names)
    others = [f"{extra} ({', '.join(names)})" for extra, names in sorted(lacks.items()) if names]
    if here:
        yield "extras", ", ".join(here)
    if others:
        yield "not here", f"{', '.join(others)}: pip install 'dfl[NAME]'"


def _disks(root: Path) -> Iterator[Line]:
    """Yield the room where dfl and the libraries write."""
    from huggingface_hub import constants

    places = {
        root: "checkpoints, logs",
        Path(tempfile.gettempdir()): "tables of images",
        Path(constants.HF_HUB_CACHE): "weights of the Hub",
    }
    for at, (place, what) in enumerate(places.items()):
        there = next((one for one in (place, *place.absolute().parents) if one.exists()), Path("/"))
        room = _size(shutil.disk_usage(there).free) if os.access(there, os.W_OK) else f"{MISSING} the right to write"
        yield "disk" if not at else "", f"{room} free in {place}: {what}" if room[0].isdigit() else f"{room} in {place}"


def _run(words: list[str]) -> Iterator[Line]:
    """Yield the room where a run writes, and what of its weights and data is there."""
    if not words:  # without the seconds of the imports
        yield from _disks(Path())
        return
    try:
        from dfl.cli import needs
    except ImportError as error:  # a library is missing, as said above
        yield "config", f"{MISSING} cannot be looked at: {first_line(error)}"
        return
    plan = needs.planned(words)
    yield from _disks(plan.root)
    if plan.layers:
        yield "config", " + ".join(plan.configs)
        for what, found, said in needs.of_run(plan):
            yield what, said if found else f"{MISSING} {said}"


def _requirements() -> Iterator[tuple[Requirement, str]]:
    """Yield what the installed dfl requires, each with its extra, or '' for what it always does."""
    try:
        lines = importlib.metadata.requires("dfl") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path, not installed
        return
    for line in lines:
        wanted = Requirement(line)
        extra = str(wanted.marker).partition("extra == ")[2].strip("'\"") if wanted.marker else ""
        wanted.marker = None
        yield wanted, extra


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _size(count: float) -> str:
    return f"{count / 2**30:.0f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
