"""Writers of single raw files, as the data sets hold them."""

from pathlib import Path

import cv2
import numpy as np


def write_jpeg(path: Path, seed: int, width: int, height: int, grey: bool = False):
    """Writes a smooth random image, so that JPEG keeps it nearly as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4) if grey else (4, 4, 3), np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (width, height)))


def write_xml(
    path: Path, name: str, width: int, height: int, *boxes: tuple[int, int, int, int]
):
    """Writes an annotation as ILSVRC's, with an object for each box.

    Args:
      path: of the new file.
      name: of every object, usually the WordNet id.
      width: of the image.
      height: of the image.
      *boxes: (xmin, ymin, xmax, ymax) each.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>"
        f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
        for xmin, ymin, xmax, ymax in boxes
    )
    size = (
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    )
    path.write_text(f"<annotation>{size}{objects}</annotation>")


def fan_out(folder: Path) -> None:
    """Folders of which each has two links to the next."""
    for number in range(26):
        (folder / f"{number}").mkdir()
        for name in ("left", "right"):
            (folder / f"{number}" / name).symlink_to(folder / f"{number + 1}")
    (folder / "26").mkdir()
