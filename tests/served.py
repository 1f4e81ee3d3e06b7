"""The server of the tests: a detector with maps, and small limits."""

from pathlib import Path

from dfl.sharing.serve.settings import Settings

CHECKPOINT = Path(__file__).parent / "golden" / "checkpoints" / "PatchForensics.ckpt"
SETTINGS = Settings(str(CHECKPOINT), max_bytes=2_000_000, max_pixels=100_000, max_images=5, rate=0)
