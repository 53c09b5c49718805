"""Images that are made by a classifier's answers: of classes, attacks, variations."""

from saliency_jax.synthesis.adversarial import fgsm, pgd
from saliency_jax.synthesis.class_image import class_image
from saliency_jax.synthesis.variations import acceptable_variations

__all__ = ["acceptable_variations", "class_image", "fgsm", "pgd"]
