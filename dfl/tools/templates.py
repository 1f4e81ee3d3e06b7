"""``dfl data templates``: the mean and the principal components of masks, for the appearance model of FFD.

Dang et al. (CVPR 2020) let ``AttentionXception --model.map appearance`` draw its map as the mean mask of a training set
plus a weighted sum of its first principal components. Only sums over the masks are kept, so memory does not grow with
their number.
"""

import io
from pathlib import Path
from typing import Unpack

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from dfl.data.decoding import DecodeError, image_size
from dfl.data.locators import read_bytes
from dfl.data.masks import load_mask
from dfl.errors import UserError
from dfl.runs.files import claimed, write
from dfl.tools.common import Common, processes
from dfl.tools.sources import read_rows


def templates(
    sources: list[str],
    output: str = "templates.npz",
    components: int = 10,
    side: int = 19,
    split: str = "train",
    **common: Unpack[Common],
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
        **common: Options of every verb.

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
    table = read_rows(sources, common.get("root"), mask_rules=True)
    masked = pc.or_(pc.not_equal(table["mask"], ""), pc.match_substring(table["mask_rule"].cast("string"), "all"))
    here = pc.is_in(table["split"].cast("string"), pc.cast([split, ""], "string"))
    table = table.filter(pc.and_(pc.and_(pc.equal(table["label"], 1), masked), here))
    jobs = zip(*(table[name].cast("string").to_pylist() for name in ("path", "mask", "mask_rule")), strict=True)
    total, products, count = np.zeros(side * side), np.zeros((side * side,) * 2), 0
    with claimed(file), processes(len(table), "masks", common) as pool:
        for small, wrong in pool.map(_shrunk, ((*job, side) for job in jobs)):
            if wrong:
                raise UserError(f"{wrong}; `dfl data check` lists all of that kind")
            if small is not None:
                total, products, count = total + small, products + np.outer(small, small), count + 1
    if count <= components:
        raise UserError(f"{components} components need more masks of fakes than that, and {split} has {count}")
    mean = total / count
    vectors, share = principal(mean, products / count, components)
    buffer = io.BytesIO()
    cells = [array.astype(np.float32).reshape(-1, side, side) for array in (vectors, mean)]
    np.savez(buffer, components=cells[0], mean=cells[1][0], explained=share, masks=count)
    write(file, buffer.getvalue())
    print(f"{file}: {count:,} masks; {components} components explain {share.sum():.1%} of their variance")
    return file


def principal(mean: np.ndarray, second: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the principal components of data with these moments, all float64.

    Args:
        mean: (D,).
        second: (D, D), the mean of the outer products.
        components: K.

    Returns:
        (K, D), each times the standard deviation along it, its largest value positive; and (K,), the share of the
        variance that each explains.
    """
    variance, vectors = np.linalg.eigh(second - np.outer(mean, mean))
    variance, vectors = variance[::-1].clip(min=0), vectors.T[::-1][:components]
    signs = np.sign(vectors[np.arange(components), np.abs(vectors).argmax(1)])
    share = variance[:components] / variance.sum() if variance.sum() else np.zeros(components)
    return vectors * (signs * np.sqrt(variance[:components]))[:, None], share


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
