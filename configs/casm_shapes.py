r"""CASM on the embedded shapes, from a classifier of `classifier_shapes.py`.

    python train.py --config configs/casm_shapes.py --workdir runs/casm_shapes \
        --config.classifier.init=runs/classifier_shapes
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; see `common.casm_config` for `arg`."""
    config = common.casm_config(arg, default_thinning="L100", forms=("smoke", "demo"))
    config.total_steps = 3000

    config.data.name = "shapes"
    config.data.image_size = 64
    config.data.batch_size = 64
    config.data.min_area = 0.5

    config.classifier.network = "resnet10"
    config.classifier.width = 32
    config.classifier.stem = "small_stride2"
    config.classifier.optimiser.decay_every = 2000
    config.masker.optimiser.decay_every = 2000
    if common.asks_for(arg, "demo"):
        config.total_steps = 300
        config.log.every = 20
        config.log.picture_every = 100
    if common.asks_for(arg, "smoke"):
        common.shrink(config)
    return config
