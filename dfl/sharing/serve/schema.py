"""What the API answers, as its OpenAPI document describes it. Absent parts are left out of an answer."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Word = Literal["real", "fake", "unsure"]
PROBABILITY = "Calibrated probability of fake, of images like the validation's; absent where nothing was calibrated."


class Change(BaseModel):
    """The verdict on a changed copy of the image."""

    name: str = Field(description="Such as jpeg_75.")
    about: str = Field(description="What was done, and what the number of the name means.")
    score: float = Field(description="As of the image itself.")
    probability: Annotated[float | None, Field(description=PROBABILITY)] = None
    verdict: Word


class Answer(BaseModel):
    """What the detector says of an image."""

    name: str = Field(description="Of the file, as it was sent.")
    score: float = Field(description="The detector's own probability of fake, in [0, 1].")
    probability: Annotated[float | None, Field(description=PROBABILITY)] = None
    verdict: Word = Field(description="By the threshold of GET /about.")
    width: int = Field(description="Of the upright image, in pixels.")
    height: int
    classes: Annotated[
        dict[str, float] | None, Field(description="Probability of each class, of detectors with several.")
    ] = None
    text: Annotated[str | None, Field(description="What the detector says in words, of those that write.")] = None
    map: Annotated[
        str | None, Field(description="With maps=true: PNG of 16 bits in base64, 65535 = surely manipulated.")
    ] = None
    overlay: Annotated[
        str | None, Field(description="With maps=true: the image with its map over it, JPEG in base64.")
    ] = None
    unusual: Annotated[str | None, Field(description="In what it is unlike the images of the training.")] = None
    metadata: Annotated[
        dict[str, str] | None, Field(description="With metadata=true: what the file says of itself.")
    ] = None
    changes: Annotated[list[Change] | None, Field(description="With changes=true: the same of changed copies.")] = None


class Failed(BaseModel):
    """An image of a batch that has no answer."""

    name: str
    error: str


class Error(BaseModel):
    """Why a request has no answer."""

    error: str = Field(description="One line.")


class Health(BaseModel):
    """Whether images are scored."""

    status: Literal["ok"]


class About(BaseModel):
    """What serves here."""

    detector: str
    version: str = Field(description="Of dfl.")
    device: str
    threshold: float = Field(description="An image is fake from this score.")
    unsure: Annotated[tuple[float, float] | None, Field(description="Between these scores nothing is said.")] = None
    meaning: str = Field(description="Where the threshold comes from, in a sentence.")
    metadata: bool = Field(description="Whether metadata=true looks for signed manifests (C2PA); tags are read anyway.")
    max_bytes: int = Field(description="Of a request.")
    max_pixels: int = Field(description="Of an image.")
    max_images: int = Field(description="Of POST /batch.")
    rate: int = Field(description="Images a minute of one client; 0 for no limit.")
