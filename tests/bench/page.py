"""How large the page of a benchmark of 20 methods and 20 domains is, against its limit of 5 MB, and how long it takes,
against one of 3 methods and 3 domains."""

import time

from dfl.benchmark.page import page
from tests.benchmark.content import content

LIMIT_MB = 5


def main() -> None:
    """Measure and print."""
    seconds, size = {}, {}
    for n in (3, 20):
        made = content(n, n)
        start = time.perf_counter()
        size[n] = len(page(made)) / 1e6
        seconds[n] = time.perf_counter() - start
    print(
        f"page of 20 x 20: {size[20]:.1f} MB, {size[20] / LIMIT_MB:.0%} of {LIMIT_MB} MB; {seconds[20]:.0f} s, "
        f"{seconds[20] / seconds[3]:.1f} times that of 3 x 3"
    )


if __name__ == "__main__":
    main()
