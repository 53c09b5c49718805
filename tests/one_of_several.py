"""`python -m tests.one_of_several FLAGS`: train.py, with the tests' networks.

Where `READS` names a folder, the bytes of the training images that this process read go
to a file there when it ends.
"""

import atexit
import os
from pathlib import Path

import tests.runs  # noqa: F401, whose networks a config may name
import train
from saliency_jax.data.sources import Source
from saliency_jax.errors import run_command


def count_reads(folder):
    sizes, get = [], Source.__getitem__

    def counted(source, index):
        example = get(source, index)
        if source.split == "train":
            sizes.append(len(example["image"]))
        return example

    Source.__getitem__ = counted
    path = Path(folder) / str(os.getpid())
    atexit.register(lambda: path.write_text(str(sum(sizes))))


if __name__ == "__main__":
    if "READS" in os.environ:
        count_reads(os.environ["READS"])
    run_command(train.main)
