"""The options that dfl adds to Lightning's."""

from typing import Any, Literal

#: Options of every verb: name, type, default, help.
OPTIONS: tuple[tuple[str, Any, Any, str], ...] = (
    ("root", str, ".", "Folder that holds checkpoints/ and lightning_logs/."),
    ("name", str | None, None, "Name of the run; that of the first config."),
    ("overwrite", bool, False, "Let fit replace the run of this name, if there is one."),
    (
        "init_from",
        str | None,
        None,
        "Run (its best), RUN/last or file whose weights fit begins with, by name and shape.",
    ),
    ("output", str | None, None, "File of predict, .csv or .jsonl, or - for the screen; predictions.csv in the log."),
    ("onnx", str | None, None, "Graph of dfl export that predict scores with, in place of a checkpoint."),
    ("maps", str | None, None, "Folder of predict for maps and overlays."),
    ("map_format", Literal["png", "npz"], "png", "Format of the maps: 16 bits, or float32."),
    ("fpr", float | None, None, "Share of real images that predict may call fake; else the best balanced accuracy."),
    ("frames", int | None, None, "Frames, evenly spread, that predict PATH takes of a video; videos are left out."),
    ("ray", int | None, None, "Workers of Ray that predict shares a long list among; --output is a folder of parts."),
    ("metadata", bool, False, "Let predict add what files say of their making: C2PA, EXIF, XMP, chunks of PNG."),
    ("trust", str | None, None, "PEM file of certificates whose C2PA manifests --metadata believes."),
    ("coverage", float, 1.0, "Share of images that predict gives a verdict; the least sure are unsure."),
)
#: What the help of `predict` says.
PREDICT = """Score images: dfl predict PATH... [--output FILE]. A PATH is an image, a folder, a pattern such as
'photos/**/*.jpg', a table or list of images, or - for paths on standard input; with --ray also an address such as
s3://bucket/folder. --views five or tiles also looks at the corners of large images, or at nine parts."""
#: Options that are arguments of the `PredictionWriter`.
TOLD = ("output", "maps", "map_format", "fpr", "coverage", "metadata", "trust")
