r"""CASM on Tiny ImageNet, from a classifier of `classifier_tiny_imagenet.py`.

    python train.py --config configs/casm_tiny_imagenet.py \
        --config.classifier.init=runs/classifier_tiny_imagenet \
        --workdir runs/casm_tiny_imagenet
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; see `common.casm_config` for `arg`."""
    config = common.casm_config(arg, default_thinning="L100")
    config.total_steps = 3000

    config.data.name = "tiny_imagenet"
    config.data.image_size = 64
    config.data.batch_size = 64
    config.data.min_area = 0.25

    config.classifier.network = "resnet10"
    config.classifier.width = 32
    config.classifier.stem = "small_stride2"
    config.classifier.optimiser.decay_every = 2000
    config.masker.optimiser.decay_every = 2000
    if common.asks_for(arg, "smoke"):
        common.shrink(config)
    return config
