"""`python -m saliency_jax.data prepare NAME --source DIR --data_dir DIR`."""

from collections.abc import Sequence

from absl import flags

from saliency_jax.data.prepare import prepare
from saliency_jax.data.sources import PREPARED_HERE
from saliency_jax.errors import InputError, run_command

_USAGE = "python -m saliency_jax.data prepare NAME --source DIR --data_dir DIR"

_SOURCE = flags.DEFINE_string("source", None, "Folder of the raw files.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of prepared data sets.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 64, "shapes: side in pixels.", 16)
_NUM_TRAIN = flags.DEFINE_integer("num_train", 10_000, "shapes: training images.", 10)
_NUM_VALIDATION = flags.DEFINE_integer(
    "num_validation", 1_000, "shapes: validation images.", 10
)
_CLIP_BOXES = flags.DEFINE_boolean(
    "clip_boxes", False, "Cut boxes that stick out of their image."
)


def main(argv: Sequence[str]) -> None:
    """Prepares the data set that the command line names."""
    if len(argv) != 3 or argv[1] != "prepare":
        raise InputError(f"usage: {_USAGE}; NAME is one of {', '.join(PREPARED_HERE)}")
    prepare(
        argv[2],
        _DATA_DIR.value,
        _SOURCE.value,
        image_size=_IMAGE_SIZE.value,
        num_train=_NUM_TRAIN.value,
        num_validation=_NUM_VALIDATION.value,
        clip_boxes=_CLIP_BOXES.value,
    )


if __name__ == "__main__":
    run_command(main)
