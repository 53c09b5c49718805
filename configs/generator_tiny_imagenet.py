r"""A DCGAN of Tiny ImageNet at 64x64, of the published width, for a GPU.

    python train.py --config configs/generator_tiny_imagenet.py \
        --workdir runs/generator_tiny_imagenet

It has not been run at this length. Nothing scores it: look at the samples in the
run's `pictures`.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "smoke"."""
    config = common.generator_config(arg)
    config.total_steps = 40_000

    config.data.name = "tiny_imagenet"
    config.data.image_size = 64
    config.data.min_area = 0.5
    if config.form == "smoke":
        common.shrink(config)
    return config
