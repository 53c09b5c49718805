"""How many classes a function of the user's own has."""

import jax.numpy as jnp
import pytest

from saliency_jax.errors import InputError
from saliency_jax.models.black_box import count_classes
from saliency_jax.models.classifier import Classifier


def count(function):
    return count_classes(Classifier.from_function(function), "my:function", 8)


def test_classes_are_counted():
    assert count(lambda images: jnp.mean(images, (1, 2))) == 3


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: jnp.mean(x, (1, 2))[:, :1], "my:function gives one logit for each"),
        (lambda x: jnp.mean(x, (1, 2, 3)), r"gives \(1,\) for images \(1, 8, 8, 3\)"),
        (lambda x: jnp.mean(x, (0, 1, 2)), r"gives \(3,\) for images"),
        (lambda x: {"logits": x}, "gives dict for images"),
    ],
)
def test_what_gives_no_logits(function, message):
    with pytest.raises(InputError, match=message):
        count(function)
