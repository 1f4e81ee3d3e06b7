"""What ``dfl serve`` is asked for: the options of the verb, checked."""

import ipaddress
import os
import socket
from dataclasses import dataclass
from typing import Literal

from dfl.errors import UserError

#: In the environment: what a client must send, as ``Authorization: Bearer KEY``.
KEY = "DFL_API_KEY"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """A detector, an address, and limits.

    Args:
        ckpt_path: best, last, a file, or hf://user/repo.
        root: Folder that holds checkpoints/.
        name: Name of the run; by default the newest one.
        model: Arguments that a checkpoint cannot bring, such as --model.weights FILE.
        fpr: Share of real images that may be called fake, for the threshold.
        coverage: Share of images that are to have a verdict; the others are unsure.
        trust: PEM file of certificates whose signed manifests are believed.
        views: The centre of an image; five: and its corners; tiles: nine crops.
        accelerator: As Lightning's: auto, cpu, gpu.
        batch_size: Images that go through the detector together, at most.
        batch_window: Milliseconds that an image waits for others at most.
        host: Address to listen on; others than this machine's own need the environment to hold DFL_API_KEY.
        port: 0 takes a free one.
        hosts: Names by which clients may call this server; by default this machine's own, or any with a key.
        max_bytes: Of a request.
        max_pixels: Of an image.
        max_images: Of a batch request.
        max_requests: That are worked on at once; one more is told to come again.
        rate: Images a minute of one client; 0 for no limit. Each changed copy counts.

    Raises:
        UserError: For what makes no sense.
    """

    ckpt_path: str = "best"
    root: str = "."
    name: str | None = None
    model: dict[str, str] | None = None
    fpr: float | None = None
    coverage: float = 1.0
    trust: str | None = None
    views: Literal["centre", "five", "tiles"] = "centre"
    accelerator: str = "auto"
    batch_size: int = 16
    batch_window: float = 5.0
    host: str = "127.0.0.1"
    port: int = 8000
    hosts: list[str] | None = None
    max_bytes: int = 20_000_000
    max_pixels: int = 64_000_000
    max_images: int = 32
    max_requests: int = 64
    rate: int = 600

    def __post_init__(self) -> None:
        least = {"batch_size": 1, "batch_window": 0, "port": 0, "rate": 0}
        least |= dict.fromkeys(("max_bytes", "max_pixels", "max_images", "max_requests"), 1)
        for name, lowest in least.items():
            if not getattr(self, name) >= lowest:
                raise UserError(f"--{name} {getattr(self, name)} must be at least {lowest}")
        if not self.is_local and not self.key:
            raise UserError(
                f"--host {self.host} lets other machines in: set {KEY} in the environment to the key that they must "
                "send, or leave --host out"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name, which may be anybody's
            return False

    @property
    def family(self) -> socket.AddressFamily:
        """Of the address to listen on."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def key(self) -> str:
        """What clients must send; '' for nothing. It stays in the environment, where no list of processes shows it."""
        return os.environ.get(KEY, "")

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names by which clients may call; None for any, since with a key a name proves nothing."""
        if self.hosts is not None:
            return tuple(self.hosts)
        return None if self.key else (*LOOPBACK, self.host)
