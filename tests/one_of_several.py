"""`python -m tests.one_of_several FLAGS`: train.py, with the tests' networks.

Where `READS` names a folder, the training images that this process read, in order, go
to a file there when it ends, each with its bytes.
"""

import atexit
import json
import os
from pathlib import Path

import tests.runs  # noqa: F401, whose networks a config may name
import train
from saliency_jax.data.sources import Source
from saliency_jax.errors import run_command


def record_reads(folder):
    read, get = [], Source.__getitem__

    def recorded(source, index):
        example = get(source, index)
        if source.indices is not None:  # a part: training or held-out images
            record = int(source.indices[index])
            read.append((len(source), record, len(example["image"])))
        return example

    Source.__getitem__ = recorded
    path = Path(folder) / f"{os.getpid()}.json"

    @atexit.register
    def write():
        most, *_ = max(read)  # the held-out images are fewer
        path.write_text(json.dumps([one for n, *one in read if n == most]))


if __name__ == "__main__":
    if "READS" in os.environ:
        record_reads(os.environ["READS"])
    run_command(train.main)
