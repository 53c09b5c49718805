r"""CASM on the embedded shapes, from a classifier of `classifier_shapes.py`.

    python train.py --config configs/casm_shapes.py --workdir runs/casm_shapes \
        --config.classifier.init=runs/classifier_shapes

Three minutes on two CPU cores; localisation error 13.6, 14.8 and 11.2 % with the seeds
0, 1 and 2 on the validation images.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; see `common.casm_config` for `arg`."""
    config = common.casm_config(arg, default_thinning="L100", forms=("smoke", "demo"))
    config.total_steps = 800

    config.data.name = "shapes"
    config.data.image_size = 64
    config.data.batch_size = 64
    config.data.min_area = 0.5

    config.classifier.network = "resnet10"
    config.classifier.width = 16
    config.classifier.stem = "small_stride2"
    # The class is the outline, which a hole of the mask's form shows too: a classifier
    # that learns fast from masked images reads it there, and masks become fragments.
    config.classifier.optimiser.learning_rate = 3e-4
    config.classifier.optimiser.schedule = "cosine"
    config.masker.optimiser.learning_rate = 3e-3
    config.masker.optimiser.schedule = "cosine"
    # The objects are small: the published lambda leaves a margin around them.
    config.casm.area_factor = 2.0
    config.checkpoint.every = 200
    config.log.evaluate_every = 100
    if config.form == "demo":
        config.total_steps = 600
        config.log.every = 20
        config.log.picture_every = 100
    if config.form == "smoke":
        common.shrink(config)
    return config
