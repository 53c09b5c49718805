r"""The real-time masker of Dabkowski and Gal on ImageNet, as its authors trained it.

    python train.py --config configs/black_box_imagenet.py \
        --workdir runs/black_box_imagenet --config.data.data_dir=DIR \
        --config.classifier.init=resnet50.pth --config.encoder.init=resnet50.pth

8,500 steps of the selector and 3,000 of the decoder. `:paper` has the objective, the
decoder and the constants of the paper in the place of the code's.

`black_box_imagenet.py:mini` is for a few thousand images and a laptop: the weights of a
MobileNetV2 are black box, encoder and, with their last layer, selector at once.

    python train.py --config configs/black_box_imagenet.py:mini \
        --workdir runs/black_box_mini \
        --config.classifier.init=mobilenet_v2_tf.safetensors

On ten classes 37 minutes on two CPU cores; on all, LE 42 % with --variant real_time.
The whole run has not been made.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; see `common.black_box_config` for `arg`."""
    config = common.black_box_config(arg, forms=("smoke", "mini"))

    config.data.name = "imagenet_loc"
    config.data.holdout = 5000
    config.data.num_threads = 16
    config.checkpoint.every = 500
    config.log.evaluate_every = 500
    if config.form == "mini":
        config.data.batch_size = 16
        config.data.holdout = 0  # so few images have too few boxes
        config.data.num_threads = 2
        config.classifier.network = "mobilenet_v2"
        config.encoder.network = ""
        # The last layer knows a thousand classes, the images show ten: training the
        # selector on them would unlearn the others.
        config.masker.selector_init = "classifier"
        config.selector.steps = 0
        # A class activation map of a class that is not there is about zero, where an
        # untrained gate would be half open.
        config.masker.training_confidence = 6.0
        config.masker.base = 32
        config.decoder.steps = 800
        config.decoder.batch_size = 16
        config.decoder.optimiser.schedule = "cosine"
        config.checkpoint.every = 100
        config.log.every = 20
        config.log.picture_every = 100
    if config.form == "smoke":
        common.shrink(config)
    return config
