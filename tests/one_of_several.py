"""`python -m tests.one_of_several FLAGS`: train.py, with the tests' networks.

Where `READS` names a folder, what this process read goes to a file there at its end.
"""

import atexit
import collections
import json
import os
from pathlib import Path

import tests.runs  # noqa: F401, whose networks a config may name
import train
from saliency_jax.data.sources import Source
from saliency_jax.errors import run_command


def record_reads():
    """Has each image that is read from now on written down, with its bytes.

    Returns:
      By split and number of images, such as "train 44" for those that are trained on,
      "train 16" for those held out and "train 60" before they are told apart: the
      record and the bytes of each read.
    """
    reads, get = collections.defaultdict(list), Source.__getitem__

    def recorded(source, index):
        example = get(source, index)
        record = int(index if source.indices is None else source.indices[index])
        name = f"{source.split} {len(source)}"
        reads[name].append((record, len(example["image"])))
        return example

    Source.__getitem__ = recorded
    return reads


if __name__ == "__main__":
    if "READS" in os.environ:
        path = Path(os.environ["READS"]) / f"{os.getpid()}.json"
        reads = record_reads()
        atexit.register(lambda: path.write_text(json.dumps(reads)))
    run_command(train.main)
