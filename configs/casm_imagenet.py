r"""CASM on ImageNet as published: ResNet-50, 224x224, 120,180 steps of 128 images.

    python train.py --config configs/casm_imagenet.py:L1000 \
        --workdir runs/casm_imagenet --config.data.data_dir=DIR \
        --config.classifier.init=resnet50.pth

`classifier.init` is a run of `classifier_imagenet.py` or a weights file with
torchvision's names, which is what the authors started from.

`casm_imagenet.py:mini` is for a few thousand images and a laptop, from the weights of a
MobileNetV2:

    python train.py --config configs/casm_imagenet.py:mini --workdir runs/casm_mini \
        --config.classifier.init=mobilenet_v2_tf.safetensors

On 2,000 images of ten classes: 12 minutes on two CPU cores, localisation error 43.3 %
on 638 validation images of all thousand (Baseline 49.8 %, centre box 37.3 %).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; see `common.casm_config` for `arg`."""
    # A short run never stores a second classifier with L1000.
    thinning = "L100" if "mini" in arg.split(",") else "L1000"
    config = common.casm_config(arg, thinning, forms=("smoke", "mini"))
    config.total_steps = 120_180  # 60 of the original's epochs of 2,003 steps

    config.data.name = "imagenet_loc"
    config.data.holdout = 5000
    config.data.num_threads = 16

    config.classifier.dtype = "bfloat16"
    config.checkpoint.every = 2003
    config.log.evaluate_every = 2003
    if config.form == "mini":
        config.total_steps = 400
        config.data.batch_size = 16
        config.data.min_area = 0.25
        config.data.holdout = 0  # so few images have too few boxes
        config.data.num_threads = 2
        config.classifier.network = "mobilenet_v2"
        config.classifier.dtype = "float32"
        # At 1e-3 it forgets the classes that so few images do not show.
        config.classifier.optimiser.learning_rate = 1e-4
        config.casm.area_factor = 0.5 if config.casm.thinning != "F" else 1.0
        config.masker.optimiser.schedule = "cosine"
        config.masker.taps = (2, 3, 4)
        config.masker.final_upsampling = "bilinear"
        config.checkpoint.every = 100
        config.log.every = 20
        config.log.picture_every = 100
    if config.form == "smoke":
        common.shrink(config)
    return config
