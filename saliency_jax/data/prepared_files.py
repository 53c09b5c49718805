"""What the JSON files beside the records of a prepared data set have to say."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from tensorflow_datasets.core.proto import dataset_info_pb2

# What reading such a file raises where it is damaged, here, in protobuf or in TFDS.
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    json_format.Error,
)

# A reader needs a file name and a handle for every shard of a split; ImageNet has 1024.
MOST_SHARDS = 2**13
# A batch has room for as many boxes for each of its images.
MOST_BOXES = 2**20
COUNTS = {"max_boxes": MOST_BOXES, "num_with_boxes": math.inf, "skipped": math.inf}
"""Fields of metadata.json that have a count per split, and the most it may be."""


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds named fields.

    Raises:
      OSError, ValueError or RecursionError: it cannot be read, or holds anything else.
    """
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"it holds {content!r:.80}: expected an object with fields")
    return content


def read_information(path: Path) -> dataset_info_pb2.DatasetInfo:
    """Reads a `dataset_info.json`.

    Raises:
      An error of `UNREADABLE`: it cannot be read, or has a value that none has.
    """
    content = read_object(path)
    info = json_format.ParseDict(content, dataset_info_pb2.DatasetInfo())
    for split in info.splits:
        lengths = split.shard_lengths
        if len(lengths) > MOST_SHARDS:
            raise ValueError(
                f"split {split.name:.80} has {len(lengths)} shardLengths: expected at "
                f"most {MOST_SHARDS}"
            )
        if lengths and min(lengths) < 0:
            raise ValueError(
                f"split {split.name:.80} has {min(lengths)} among its shardLengths: "
                "expected counts"
            )
    return info


def check_metadata(content: Mapping[str, Any]) -> None:
    """Checks what a `metadata.json` says of boxes and images; it may say nothing.

    Raises:
      ValueError: a field has a value that none has.
    """
    for name, most in COUNTS.items():
        counts = content.get(name, {})
        if not isinstance(counts, dict) or not all(
            type(count) is int and 0 <= count <= most for count in counts.values()
        ):
            limit = "" if most == math.inf else f" of at most {most}"
            raise ValueError(
                f"{name} = {counts!r:.80}: expected a count{limit} for each split"
            )
    if not isinstance(upright := content.get("upright", False), bool):
        raise ValueError(f"upright = {upright!r:.80}: expected true or false")


def check_shard_sizes(shards: Mapping[Path, int]) -> None:
    """Refuses shards that are said to hold more examples than bytes.

    A reader believes the number, and an order of that many is drawn before the first
    example is read. A file that is missing or empty is told when it is read.

    Args:
      shards: the number of examples of each file.

    Raises:
      ValueError: which names the first.
    """
    for path, length in shards.items():
        size = path.stat().st_size if path.is_file() else 0
        if 0 < size < length:
            raise ValueError(
                f"shard {path.name} has {length} examples in {size} bytes: expected "
                "the number that the file holds"
            )
