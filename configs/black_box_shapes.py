r"""The real-time masker on the embedded shapes, for a run of `classifier_shapes.py`.

    python train.py --config configs/black_box_shapes.py \
        --workdir runs/black_box_shapes --config.classifier.init=runs/classifier_shapes

Four minutes on a CPU core; LE 26 %, saliency metric -1.15 on the validation images.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; see `common.black_box_config` for `arg`."""
    config = common.black_box_config(arg)

    config.data.name = "shapes"
    config.data.image_size = 64
    config.data.min_area = 0.5

    config.classifier.network = "resnet10"
    config.classifier.width = 16
    config.classifier.stem = "small_stride2"
    config.encoder.network = ""
    config.masker.base = 16
    config.masker.confidence = 0.0
    config.selector.steps = 300
    config.decoder.steps = 700
    config.decoder.optimiser.schedule = "cosine"
    config.checkpoint.every = 200
    config.log.every = 20
    config.log.evaluate_every = 100
    config.log.picture_every = 100
    if config.form == "smoke":
        common.shrink(config)
    return config
