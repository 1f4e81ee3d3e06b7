"""``dfl data embed``: the features of all images by a frozen encoder, as a table and as a map of two dimensions.

    images -> Transform without augmentation -> Encoder -> feature (N, D) -> features.parquet
                                                              |
                                            PCA, and UMAP where it is installed -> features.html

A map shows what the encoder sees without any label: whether fakes lie apart, and whether what lies apart is the
generator, or only the data set.
"""

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader

from dfl.data.batch import collate
from dfl.data.dataset import ImageDataset
from dfl.data.loader_process import loader_context, outlive_signals
from dfl.data.transforms import Transform
from dfl.evaluation import html, plots
from dfl.features import FeatureStore
from dfl.networks import Encoder
from dfl.networks.encoder import Output
from dfl.runs.files import claimed, write
from dfl.tools.common import parquet_file, write_parquet
from dfl.tools.problems import CLASSES
from dfl.tools.sources import read_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Columns of a row that the table keeps, and those that a map is coloured by, each under its title.
KEPT = ("path", "label", "generator", "set", "split")
COLOURED = {"label": "label", "generator": "generator", "domain": "set"}
#: Points of a map, and names that have a colour of their own; what comes after is grey.
POINTS, NAMES = 20_000, 16
CLIP = "vit_base_patch16_clip_224.openai"


def embed(
    sources: list[str],
    output: str = "features.parquet",
    backbone: str | None = None,
    weights: str | None = None,
    pretrained: bool = True,
    folder: str | None = None,
    features: Output = "pooled",
    input_size: int | None = None,
    resize: Literal["shorter", "squash", "pad", "none"] = "shorter",
    store: str | None = None,
    batch_size: int = 32,
    workers: int = 2,
    device: str = "cpu",
    root: str | None = None,
) -> Path:
    """Write the features of all images, and a page with maps of them, coloured by label, generator and domain.

    Args:
        sources: Data configs, folders, tables.
        output: The table, a Parquet file: ``path``, ``label``, ``generator``, ``domain``, ``split`` and ``feature``,
            a list of as many float32 in every row. The page lies beside it, with the ending .html.
        backbone: Encoder by timm name; by default CLIP ViT-B/16.
        weights: Of the backbone: a local file, or a timm tag.
        pretrained: Take pretrained weights of the backbone.
        folder: In place of a backbone: a vision tower of transformers, a folder or a name on the Hub.
        features: What the encoder gives of an image: pooled, cls, mean or projection.
        input_size: Side of the images in pixels; by default the encoder's own.
        resize: How images are brought to it, as of ``data.transform.resize``; ``none`` crops the centre.
        store: Folder that keeps features, so that an image is encoded once.
        batch_size: Images that are encoded at once.
        workers: Processes that decode; 0 decodes here.
        device: cpu, cuda, ...
        root: Folder that replaces the root of every source of the configs.

    Returns:
        The table's file.

    Raises:
        UserError: If a source gives no row, an image cannot be read, or the encoder is not there.
    """
    file = parquet_file(output)
    rows = read_rows(sources, root)
    named = CLIP if backbone is None and folder is None else backbone
    encoder = Encoder(named, pretrained, weights, None, folder, features, input_size).to(device)
    view = Transform(augment="none", resize=resize).eval(encoder.input_size)
    data = ImageDataset(rows, view, encoder.input_size, {})
    with claimed(file):
        found = encoded(encoder, data, store, batch_size, workers, device)
        flat = pa.array(found.reshape(-1), pa.float32())
        columns: dict[str, Any] = {("domain" if name == "set" else name): rows[name] for name in KEPT}
        table = pa.table(columns | {"feature": pa.FixedSizeListArray.from_arrays(flat, found.shape[1])})
        write_parquet(file, table)
        page = file.with_suffix(".html")
        names = {title: names_of(rows, column) for title, column in COLOURED.items()}
        write(page, maps_page(found, names, str(named or folder)))
    print(f"{len(found):,} features of {found.shape[1]} numbers in {file}, maps in {page}")
    return file


def encoded(
    encoder: Encoder, data: ImageDataset, store: str | None, batch_size: int, workers: int, device: str
) -> np.ndarray:
    """Return the features of a data set (n, D) float32, in its order."""
    found = np.empty((len(data), encoder.dim), np.float32)
    kept = FeatureStore(store, encoder.network.state_dict, encoder.settings, flag="--store") if store else None
    loader: Any = DataLoader(
        data,
        batch_size,
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=outlive_signals,
        multiprocessing_context=loader_context(workers),
    )
    at = 0
    with torch.inference_mode():
        for batch in loader:
            image = batch["image"].to(device).float().div_(255)
            feature = kept(image, lambda unseen: [encoder(unseen)])[0] if kept is not None else encoder(image)
            found[at : at + len(image)] = feature.cpu().numpy()
            at += len(image)
    if kept is not None:
        kept.flush()
    return found


def names_of(rows: pa.Table, column: str) -> np.ndarray:
    """Return a word for each row: real or fake, the generator (real images have none), or the domain."""
    label = rows["label"].to_numpy()
    words = np.array([CLASSES[int(value)] for value in label], object)
    if column == "label":
        return words
    names = np.array(rows[column].to_pylist(), object)
    if column == "generator":
        return np.where(label == 0, words, np.where(names == "", "no name", names))
    return names


def flat_maps(features: np.ndarray) -> dict[str, np.ndarray]:
    """Return maps (n, 2) by name: principal components, with their share of the variance, and UMAP if installed."""
    centred = features - features.mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred)  # rising
    share = variances[-2:].sum() / max(float(variances.sum()), 1e-30)
    maps = {f"principal components, {100 * share:.0f} % of the variance": centred @ directions[:, :-3:-1]}
    if find_spec("umap") is not None and len(features) > 15:
        import umap

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a seed means one thread
            maps["UMAP"] = umap.UMAP(metric="cosine", random_state=0).fit_transform(features)
    return maps


def draw(points: np.ndarray, names: np.ndarray, title: str) -> "Figure":
    """Draw a map (n, 2), each point in the colour of its name; the legend counts them."""
    words, counts = np.unique(names.astype(str), return_counts=True)
    order = [str(words[at]) for at in np.argsort(-counts, kind="stable")]
    shown = sorted(order[:NAMES], key=lambda name: (name != "real", name))
    drawn = plots.figure(4.2, 3.9 + 0.17 * ((len(shown) + 2) // 2))
    axes = drawn.subplots()
    plots.style(axes, title)
    axes.set_xticks([])
    axes.set_yticks([])
    size = float(np.clip(4e3 / max(len(points), 1), 2, 14))
    marks = "os^"
    for place, name in enumerate([*shown, *([None] if len(order) > NAMES else [])]):
        mask = np.isin(names, order[NAMES:]) if name is None else names == name
        colour = "#999999" if name is None else plots.looks(place)["color"]
        text = f"{len(order) - NAMES} others" if name is None else name
        x, y = points[mask].T
        axes.scatter(
            x, y, s=size, alpha=0.6, linewidths=0, color=colour,
            marker=marks[place // len(plots.COLOURS) % len(marks)], label=plots.plain(f"{text} ({int(mask.sum()):,})"),
        )  # fmt: skip
    drawn.legend(loc="outside lower center", fontsize=7, frameon=False, ncols=2, markerscale=2)
    return drawn


def maps_page(features: np.ndarray, names: Mapping[str, np.ndarray], encoder: str) -> str:
    """Return the page: each map once for each way to colour it; a sample where there are too many points."""
    rows = np.arange(len(features))
    if len(rows) > POINTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, POINTS, replace=False))
    note = f"{len(features):,} images" + (f", {POINTS:,} of them drawn" if len(rows) < len(features) else "")
    parts = [f"<p class=soft>{note}; {features.shape[1]} numbers each, of {html.text(encoder)}</p>"]
    for title, points in flat_maps(features[rows]).items():
        figures = {f"{title}, by {by}": draw(points, words[rows], f"by {by}") for by, words in names.items()}
        parts += [f"<h2>{html.text(title[0].upper() + title[1:])}</h2>", html.figures(figures)]
    return html.document("Map of features", parts)
