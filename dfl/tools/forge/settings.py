"""What the pictures of a forged set depend on, beside the sources and the weights of models."""

from dataclasses import asdict, dataclass
from typing import Any

from dfl.errors import UserError
from dfl.tools.forge.shapes import Kind


@dataclass(frozen=True)
class Settings:
    """Arguments of ``forge``, within bounds.

    Attributes:
        models: What each maker that is a model makes (region, edit, full) by its name; None without models.
        roundtrip: Name of the model whose VAE real photos go through.
        device: Where models run; None without models.
    """

    makers: list[str]
    shapes: Kind
    per_image: int
    min_area: float
    max_area: float
    feather: float
    colour: float
    max_side: int | None
    quality: int | None
    seed: int
    square: int | None = None
    models: dict[str, str] | None = None
    roundtrip: str | None = None
    batch: int | None = None
    dtype: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        """Raise a UserError for what is out of bounds."""
        if not 0 < self.min_area <= self.max_area < 1:
            raise UserError(f"--min_area {self.min_area} and --max_area {self.max_area} must rise, within 0 and 1")
        if not 0 <= self.colour <= 1 or self.feather < 0:
            raise UserError(f"--colour {self.colour} must be within 0 and 1, --feather {self.feather} not negative")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UserError(f"--quality {self.quality} must be within 1 and 100")
        for option, side in (("max_side", self.max_side), ("square", self.square)):
            if side is not None and side < 16:
                raise UserError(f"--{option} {side} must be at least 16")
        if self.max_side is not None and self.square is not None:
            raise UserError("--max_side and --square both set a size: keep one")
        if self.per_image < 1:
            raise UserError(f"--per_image {self.per_image} must be at least 1")
        if self.batch is not None and self.batch < 1:
            raise UserError(f"--batch {self.batch} must be at least 1")
        if self.device and self.device.startswith("cpu") and self.dtype == "float16":
            raise UserError("--dtype float16 is for a GPU, and the device is cpu: give float32 or bfloat16")

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest share of an image that is changed."""
        return self.min_area, self.max_area

    def kind(self, maker: str) -> str | None:
        """Return what a model makes; None for a maker that is none."""
        return (self.models or {}).get(maker)

    def record(self) -> dict[str, Any]:
        """Return what another command must share to go on: of the device, which kind it is."""
        return asdict(self) | {"device": self.device and self.device.partition(":")[0]}
