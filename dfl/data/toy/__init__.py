"""The toy data set: portraits drawn from numbers, photographed, and faked by mechanisms that real generators use.

dfl toy --root data/toy
"""

import argparse

from dfl.data.toy.make import DOMAINS, make

__all__ = ["DOMAINS", "main", "make"]


def main(argv: list[str]) -> None:
    """Make the set as files, from the words after ``dfl toy``."""
    parser = argparse.ArgumentParser("dfl toy", description="Make the toy data set: pictures, masks, and table.csv.")
    parser.add_argument("--root", default="data/toy", help="folder to make (%(default)s)")
    parser.add_argument("--n", type=int, default=4000, help="pictures in all (%(default)s)")
    parser.add_argument("--size", type=int, default=128, help="width and height in pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed (%(default)s)")
    words = parser.parse_args(argv)
    print(f"toy set: {make(words.root, words.n, words.size, words.seed)}")
