"""``dfl data templates``: the mean and the principal components of masks, for the appearance model of FFD.

Dang et al. (CVPR 2020) let ``AttentionXception --model.map appearance`` draw its map as the mean mask of a training set
plus a weighted sum of its first principal components. Only sums over the masks are kept, so memory does not grow with
their number.
"""

import io
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from dfl.data.decoding import DecodeError, image_size
from dfl.data.locators import read_bytes
from dfl.data.masks import load_mask
from dfl.data.workers import Workers, making
from dfl.errors import UserError
from dfl.runs.files import write
from dfl.tools.given import open_sources, rows


def templates(
    sources: list[str],
    output: str = "templates.npz",
    components: int = 10,
    side: int = 19,
    split: str = "train",
    root: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Compute templates from the masks of fakes.

    Args:
        sources: Data configs, folders, tables.
        output: The file, ``.npz``: ``components`` (K, side, side) float32, each times the standard deviation along
            it, so that a weight of 1 is a usual one; ``mean`` (side, side) float32; ``explained`` (K,) float64, shares
            of the variance; ``masks``, how many there were.
        components: How many; the paper takes 10.
        side: Height and width in cells; FFD's maps have 19 at 299 px. Other sizes are resized when they are used.
        split: Whose masks; rows without a split count too.
        root: Folder that replaces the root of every source of the configs.
        workers: Processes; by default one for each core.
        progress: Show a progress bar.

    Returns:
        The file.

    Raises:
        UserError: If there are too few masks for so many components, or a mask cannot be read.
    """
    file = Path(output).expanduser()
    if file.suffix != ".npz":
        raise UserError(f"-o {output} must end in .npz")
    if side < 2 or not 1 <= components < side * side:
        raise UserError(f"--components {components} and --side {side}: take at least 1 and 2, and fewer than cells")
    table = rows(open_sources(sources, root), decide=True)
    known = pc.or_(pc.not_equal(table["mask"], ""), pc.match_substring(table["mask_rule"].cast("string"), "all"))
    here = pc.is_in(table["split"].cast("string"), pc.cast([split, ""], "string"))
    table = table.filter(pc.and_(pc.and_(pc.equal(table["label"], 1), known), here))
    jobs = zip(*(table[name].cast("string").to_pylist() for name in ("path", "mask", "mask_rule")), strict=True)
    total, products, count = np.zeros(side * side), np.zeros((side * side,) * 2), 0
    with making("the templates", file), Workers(len(table), "masks", workers, progress) as pool:
        for small, wrong in pool.map(_shrunk, ((*job, side) for job in jobs)):
            if wrong:
                raise UserError(f"{wrong}; `dfl data check` lists all of that kind")
            if small is not None:
                total, products, count = total + small, products + np.outer(small, small), count + 1
    if count <= components:
        raise UserError(f"{components} components need more masks of fakes than that, and {split} has {count}")
    found = principal(total / count, products / count, components)
    shapes = {name: found[name].astype(np.float32).reshape(-1, side, side) for name in ("components", "mean")}
    buffer = io.BytesIO()
    np.savez(buffer, components=shapes["components"], mean=shapes["mean"][0], explained=found["share"], masks=count)
    write(file, buffer.getvalue())
    print(f"{file}: {count:,} masks; {components} components hold {found['share'].sum():.1%} of their variance")
    return file


def principal(mean: np.ndarray, second: np.ndarray, components: int) -> dict[str, np.ndarray]:
    """Return the principal components of what has these moments, all float64.

    Args:
        mean: (D,).
        second: (D, D), the mean of the outer products.
        components: K.

    Returns:
        ``mean`` (D,); ``components`` (K, D), each times the standard deviation along it, its largest value positive;
        ``share`` (K,) of the variance that each holds.
    """
    variance, vectors = np.linalg.eigh(second - np.outer(mean, mean))
    variance, vectors = variance[::-1].clip(min=0), vectors.T[::-1][:components]
    signs = np.sign(vectors[np.arange(components), np.abs(vectors).argmax(1)])
    share = variance[:components] / variance.sum() if variance.sum() else np.zeros(components)
    return {"mean": mean, "components": vectors * (signs * np.sqrt(variance[:components]))[:, None], "share": share}


def _shrunk(job: tuple[str, str, str, int]) -> tuple[np.ndarray | None, str]:
    """Return the mask of an image as shares of the cells (side * side,) float64, or why there is none."""
    path, mask, rule, side = job
    try:
        area = load_mask(mask, rule, image_size(read_bytes(path)))
    except DecodeError as error:
        return None, str(error)
    if area is None:
        return None, ""
    # the share of a cell that is manipulated, exactly
    small = Image.fromarray(area.astype(np.float32) / 255).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64).ravel(), ""
