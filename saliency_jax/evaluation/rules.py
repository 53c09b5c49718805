"""The rules of an evaluation in words, for whoever finds a `results.json` alone."""

_BINARISED = {
    "author": "mask binarised at the quantile of its mean; box of the largest "
    "4-connected component; ",
    "follow_up": "mask binarised at its mean; box of the largest 4-connected component "
    "less its last row and column; ",
    "real_time": "mask binarised at one half; tightest box around every kept pixel; ",
}
_HIT = {"author": "> 0.5", "follow_up": "> 0.5", "real_time": ">= 0.5"}

JUDGING = (
    "masks binarised as above, rectangles as they are; removed pixels are the mean "
    "colour of the run's data, or inpainted by Telea's method, radius 3; every image, "
    "but under the ground-truth box those that have one; cross-entropy and entropy in "
    "nats; of a run the classifier of its last checkpoint, shown the size that it was "
    "trained at"
)

ITERATIVE = (
    "no masker: the mask of each image optimised by itself against the run's own "
    "classifier for the true class, with the objective and the constants of the "
    "authors' iterative code; of a run of stage black_box its own removal; draws by "
    "the run's seed and the image's place in the data"
)

SALIENCY_METRIC = (
    "sm = log(max(area of the box, 0.05)) - log(probability of the true class in its "
    "crop), in nats, lower is better; the row's predicted box, cut from the image at "
    "the size of the crop's classifier and enlarged to it bilinearly; without a "
    "predicted box the mean colour and the least area"
)


def localisation(variant: str) -> str:
    """Returns the rule of one of `metrics.localisation.VARIANTS`."""
    return (
        "shorter side resized to the image size and centre crop; a map of a class is "
        f"asked for the true one; {_BINARISED[variant]}hit if intersection over union "
        f"{_HIT[variant]} with any filed box, whose cropped-away part counts as "
        "missed; om also needs the run's own classifier to be right; f1 on the soft "
        "mask, best box of an image; f1a its mean over boxes; images without a box "
        "left out; intervals of 95 %: Wilson's for shares, Student's t for means"
    )
