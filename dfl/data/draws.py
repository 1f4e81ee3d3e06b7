"""Random generators whose state is a pure function of a key, for all who must draw the same in every process."""

import hashlib
import random

import numpy as np

Key = tuple[int, ...]

_ZEROS = np.zeros(4, np.uint64)
_PHILOX = {"bit_generator": "Philox", "buffer": _ZEROS, "buffer_pos": 4, "has_uint32": 0, "uinteger": 0}


class Draws:
    """A pair of generators for good: making new ones for every sample costs more than resetting these.

    A chain of albumentations takes both (``set_random_state``). One object is not for several threads at once.
    """

    def __init__(self) -> None:
        self.numpy, self.python = np.random.Generator(np.random.Philox(0)), random.Random(0)

    def seed(self, key: Key) -> None:
        """Begin anew with a key of integers from 0 on; a hash costs a fraction of what numpy's SeedSequence does."""
        digest = hashlib.blake2b(b"%d," * len(key) % tuple(key), digest_size=16).digest()
        self.python.seed(int.from_bytes(digest, "little"))
        state = {"counter": _ZEROS, "key": np.frombuffer(digest, "<u8").astype(np.uint64)}
        self.numpy.bit_generator.state = _PHILOX | {"state": state}
