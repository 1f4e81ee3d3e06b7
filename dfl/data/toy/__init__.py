"""The toy data set: portraits drawn from numbers, photographed, and faked by mechanisms that real generators use.

dfl toy --root data/toy
dfl toy --unfair_group plum               its training fakes of one group are fewer and noisier: docs/fairness.md
dfl toy --aligned                         every photo, and its forgery by each generator: docs/detectors/lsda.md
dfl toy --models                          a generator and a captioner at random, to try `dfl forge`: docs/forge.md
"""

import argparse

from dfl.data.toy.make import DOMAINS, check_group, make
from dfl.data.toy.models import make_models

__all__ = ["DOMAINS", "check_group", "main", "make"]


def main(argv: list[str]) -> None:
    """Make the set as files, from the words after ``dfl toy``."""
    parser = argparse.ArgumentParser("dfl toy", description="Make the toy data set: pictures, masks, and table.csv.")
    parser.add_argument("--root", help="folder to make (data/toy; data/toy_unfair, data/toy_aligned with these)")
    parser.add_argument("--n", type=int, default=4000, help="pictures in all (%(default)s)")
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed (%(default)s)")
    parser.add_argument("--unfair_group", help="make this group's fakes rarer and noisier in training: plum")
    parser.add_argument("--aligned", action="store_true", help="have every photo, and its forgery by each generator")
    parser.add_argument("--models", action="store_true", help="make models in place of pictures (data/toy_models)")
    words = parser.parse_args(argv)
    if words.models:
        print(f"toy models: {make_models(words.root or 'data/toy_models')}")
        return
    root = words.root
    if root is None:
        root = "data/toy_unfair" if words.unfair_group else "data/toy_aligned" if words.aligned else "data/toy"
    more = {"unfair_group": words.unfair_group, "aligned": words.aligned}
    print(f"toy set: {make(root, words.n, words.size, words.seed, **more)}")
