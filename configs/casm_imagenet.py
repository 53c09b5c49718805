r"""CASM on ImageNet as published: ResNet-50, 224x224, 120,180 steps of 128 images.

    python train.py --config configs/casm_imagenet.py:L1000 \
        --workdir runs/casm_imagenet --config.data.data_dir=DIR \
        --config.classifier.init=resnet50.pth

`classifier.init` is a run of `classifier_imagenet.py` or a weights file with
torchvision's names, which is what the authors started from.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; see `common.casm_config` for `arg`."""
    config = common.casm_config(arg, default_thinning="L1000")
    config.total_steps = 120_180  # 60 of the original's epochs of 2,003 steps

    config.data.name = "imagenet_loc"
    config.data.holdout = 5000
    config.data.num_threads = 16

    config.classifier.dtype = "bfloat16"
    config.checkpoint.every = 2003
    config.log.evaluate_every = 2003
    if config.form == "smoke":
        common.shrink(config)
    return config
