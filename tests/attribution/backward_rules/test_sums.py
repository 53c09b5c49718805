"""Sums of a program: which terms, with which sign, and where a sum ends."""

import jax.numpy as jnp
import numpy as np

from saliency_jax.attribution.backward_rules.sums import count_uses, find_sums
from saliency_jax.attribution.program import trace
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.cpu_gradients import shifted_products
from tests.attribution.small_network import classifier, images

X = jnp.asarray(images(1))


def sums_of(function):
    """The traced program of a function of the raw images, and its sums in order."""
    program = trace(Classifier.from_function(function), X)
    return program, list(find_sums(program).values())[1:]  # after the normalisation


def written(program, found):
    """A sum as text: sign and primitive of each active term, 1 for each constant."""
    producers = {x.outvars[0]: x.primitive.name for x in program.equations}
    text = [
        "-+"[term.sign > 0]
        + (producers.get(term.atom, "?") if program.is_active(term.atom) else "1")
        for term in (*found.active, *found.constant)
    ]
    return " ".join(text)


def test_terms_with_their_signs():
    def function(x):
        a, b, c, d = jnp.sin(x), jnp.cos(x), jnp.exp(x), jnp.tanh(x)
        return (a - ((b - 2) - (c + d))).mean((1, 2))

    program, (found,) = sums_of(function)
    assert written(program, found) == "+sin -cos +exp +tanh +1"


def test_a_sum_that_is_used_twice_stands_by_itself():
    def function(x):
        inner = jnp.sin(x) + jnp.cos(x)
        return ((inner + jnp.tanh(x)) * inner).mean((1, 2))

    program, found = sums_of(function)
    assert [written(program, x) for x in found] == ["+sin +cos", "+add +tanh"]
    assert count_uses(program)[found[0].output] == 2


def test_a_tap_stands_by_itself():
    def function(x):
        inner = jnp.sin(x) + jnp.cos(x)
        return (inner + jnp.tanh(x)).mean((1, 2)), (inner,)

    program, found = sums_of(function)
    assert [written(program, x) for x in found] == ["+sin +cos", "+add +tanh"]


def test_the_same_variable_twice():
    program, (found,) = sums_of(lambda x: ((y := jnp.sin(x)) + y).mean((1, 2)))
    assert written(program, found) == "+sin +sin"
    assert found.active[0].atom is found.active[1].atom


def test_bias_and_normalisation():
    program = trace(classifier(), X)
    sums = list(find_sums(program).values())
    # The input's mean, two biases (the second with the mean of the normalisation that
    # follows), the normalisation's bias, that of the dense layer.
    assert [len(x.active) for x in sums] == [1, 1, 1, 1, 1]
    assert [len(x.constant) for x in sums] == [1, 1, 2, 1, 1]
    assert [term.sign for term in sums[2].constant] == [1, -1]


def test_depthwise_convolution_as_shifted_products():
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 1, 3)))

    def function(x):
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return shifted_products(padded, kernel, 2).mean((1, 2))

    program, (found,) = sums_of(function)
    assert written(program, found) == " ".join(["+mul"] * 9 + ["+1"])
    terms = program.evaluate(X, [term.atom for term in found.active])
    (total,) = program.evaluate(X, [found.output])
    np.testing.assert_allclose(sum(terms), total, atol=1e-6)


def test_a_long_chain():
    def function(x):
        total = jnp.sin(x)
        for i in range(1500):
            total = total + i * x
        return total.mean((1, 2))

    _, (found,) = sums_of(function)
    assert len(found.active) == 1501
