"""Metrics of maps that ask the classifier again, about edited images.

Every one is a function of its own name,

    scores = insertion_deletion(classifier, images, maps, targets, batch_size=32)

on a `Classifier` or any function from images to logits, and returns figures of each
image, `[B]` or with more axes. What it asks goes through the classifier `batch_size`
images at a time; the figures do not depend on that, up to rounding.

What is removed from an image shows the classifier's mean colour, which it sees as zero,
unless a metric says otherwise. A class that is not given is the one that the classifier
predicts for the image as it is.
"""
