"""`python -m saliency_jax.data prepare NAME --source DIR --data_dir DIR`."""

from collections.abc import Sequence

from absl import flags

from saliency_jax.data.prepare import OPTIONS, prepare
from saliency_jax.data.sources import BUILDERS, RENDERED
from saliency_jax.errors import InputError, run_command

_USAGE = "python -m saliency_jax.data prepare NAME --source DIR --data_dir DIR"

_SOURCE = flags.DEFINE_string("source", None, "Folder of the raw files.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of prepared data sets.")
# Those of some builders only are None if not given, so that others refuse them.
_SHAPES, _SCENES = OPTIONS["shapes"], " and ".join(RENDERED)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    f"{_SCENES}: side in pixels (default: {_SHAPES['image_size']}).",
    16,
)
_NUM_TRAIN = flags.DEFINE_integer(
    "num_train",
    None,
    f"{_SCENES}: training images (default: {_SHAPES['num_train']}).",
    10,
)
_NUM_VALIDATION = flags.DEFINE_integer(
    "num_validation",
    None,
    f"{_SCENES}: validation images (default: {_SHAPES['num_validation']}).",
    10,
)
_CLIP_BOXES = flags.DEFINE_boolean(
    "clip_boxes",
    None,
    "Cut boxes that stick out of their image, and exchange reversed edges.",
)
_NAME = flags.DEFINE_string(
    "name", None, "image_folder: name of the prepared data set."
)
_BOXES = flags.DEFINE_string(
    "boxes",
    None,
    "image_folder: CSV file of path,xmin,ymin,xmax,ymax in pixels, xmax and ymax "
    "exclusive, paths relative to --source; with a sixth column, class, images have "
    "several labels.",
)
_VALIDATION_FRACTION = flags.DEFINE_float(
    "validation_fraction",
    None,
    "image_folder: part of each class to take for validation, where no folder does.",
)
_SPLIT_SEED = flags.DEFINE_integer(
    "split_seed", None, "image_folder: which part (default: 0)."
)
_STRICT = flags.DEFINE_boolean(
    "strict", False, "Stop at an image that cannot be read, instead of skipping it."
)
_FOLLOW_LINKS = flags.DEFINE_boolean(
    "follow_links",
    None,
    "Take images outside --source that symbolic links in it lead to.",
)
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", 0, "Processes; 0 takes as many as there are cores.", 0
)


def main(argv: Sequence[str]) -> None:
    """Prepares the data set that the command line names."""
    if len(argv) != 3 or argv[1] != "prepare":
        raise InputError(f"usage: {_USAGE}; NAME is one of {', '.join(BUILDERS)}")
    prepare(
        argv[2],
        _DATA_DIR.value,
        _SOURCE.value,
        image_size=_IMAGE_SIZE.value,
        num_train=_NUM_TRAIN.value,
        num_validation=_NUM_VALIDATION.value,
        clip_boxes=_CLIP_BOXES.value,
        name=_NAME.value,
        boxes=_BOXES.value,
        validation_fraction=_VALIDATION_FRACTION.value,
        split_seed=_SPLIT_SEED.value,
        follow_links=_FOLLOW_LINKS.value,
        strict=_STRICT.value,
        num_workers=_NUM_WORKERS.value,
    )


if __name__ == "__main__":
    run_command(main)
