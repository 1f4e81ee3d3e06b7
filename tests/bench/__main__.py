"""`make bench`: every measurement is a ratio against a named baseline, taken in turns in one run."""

import platform
from importlib import import_module

import torch

NAMES = (
    *("step", "xception", "loader", "augmented", "packed", "rows", "overhead", "maps", "fair", "statistics", "page"),
    *("probes", "serve"),
)


def main() -> None:
    """Run all, print what was measured on."""
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in NAMES:
        import_module(f"tests.bench.{name}").main()


if __name__ == "__main__":
    main()
