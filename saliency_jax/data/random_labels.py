"""Labels that mean nothing, for a classifier that can only memorise its images.

Zhang et al.: Understanding deep learning requires rethinking generalization (arXiv
1611.03530). Maps of such a classifier are the second check of Adebayo et al. (arXiv
1810.03292).
"""

import dataclasses
import zlib
from typing import Any

import numpy as np

from saliency_jax.data.sources import Source
from saliency_jax.errors import InputError

_STREAM = zlib.crc32(b"random_labels")  # apart from what else the seed is for


def with_random_labels(source: Source, seed: int) -> Source:
    """The same images, each with a label drawn uniformly from all classes.

    A label depends on the seed and on the image's place in the whole split, and on
    nothing else: not on the epoch, the batch, or which images are held out. Boxes and
    pixel masks stay those of the true object.

    Args:
      source: of training images.
      seed: at least 0.

    Raises:
      InputError: the images may have several labels.
    """
    if source.has_several_labels:
        raise InputError(
            f"config.data.random_labels draws one label for each image, and those of "
            f"{source.name} may have several: use data of one label, or set it to False"
        )
    records = _RandomLabels(source.records, seed, source.num_classes)
    return dataclasses.replace(source, records=records)


@dataclasses.dataclass(frozen=True)
class _RandomLabels:
    """Records of another object, with drawn labels; picklable, for workers."""

    records: Any
    seed: int
    num_classes: int

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        draw = np.random.default_rng([self.seed, _STREAM, index])
        label = draw.integers(self.num_classes, size=1)
        return self.records[index] | {"label": label}
