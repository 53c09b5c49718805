"""A traced classifier computes what the classifier does, in parts too."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import jaxpr_as_fun
from jax.extend.source_info_util import new_source_info

from saliency_jax.attribution.program import (
    Rewrite,
    flattened,
    place,
    reached,
    trace,
)
from saliency_jax.models.classifier import Classifier
from tests.attribution.small_network import classifier, images


def primitives(program):
    return [equation.primitive.name for equation in program.equations]


def of_function(function, channels=1):
    program = trace(
        Classifier.from_function(
            function, mean=(0.0,) * channels, std=(1.0,) * channels
        ),
        jnp.zeros((2, 4, 4, channels)),
    )
    return program


def test_computes_what_the_classifier_does():
    model, batch = classifier(), jnp.asarray(images(2))
    program = trace(model, batch)
    wanted = [program.logits, program.taps[0]]
    logits, tap = jax.jit(lambda batch: program.evaluate(batch, wanted))(batch)
    expected, (expected_tap,) = jax.jit(Classifier.features)(model, batch)
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    np.testing.assert_allclose(tap, expected_tap, atol=1e-6)


def test_nested_calls_are_inlined():
    @jax.jit
    def inner(x):
        return jax.jit(lambda x: jnp.sin(x) + 1)(x)

    @jax.checkpoint
    def outer(x):
        return inner(x).mean((1, 2)) * 2

    program = of_function(outer)
    assert not {"jit", "pjit", "remat2", "checkpoint", "closed_call"} & set(
        primitives(program)
    )
    assert primitives(program).count("sin") == 1
    batch = jnp.asarray(np.random.default_rng(0).random((2, 4, 4, 1)), jnp.float32)
    (logits,) = program.evaluate(batch, [program.logits])
    np.testing.assert_allclose(logits, outer(batch), rtol=1e-6)


def test_where_an_equation_stands():
    """Of a function of JAX that is jitted itself, where it is called."""
    program = of_function(lambda x: jnp.sort(x, axis=-1).mean((1, 2)))
    (sort,) = [x for x in program.equations if x.primitive.name == "sort"]
    assert re.fullmatch(r"sort \(.*test_program.py:\d+:\d+ \(.*\)\)", place(sort))
    assert place(sort.replace(source_info=new_source_info())) == "sort"


def test_remat_of_linen_modules():
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.remat(nn.Conv)(4, (3, 3), name="conv")(x)
            return nn.Dense(2, name="fc")(nn.relu(x).mean((1, 2)))

    module, batch = Network(), jnp.asarray(images(2))
    model = Classifier(module.init(jax.random.key(0), batch, False), module)
    program = trace(model, batch, ["conv"])
    assert "conv" in program.named and "remat2" not in primitives(program)
    logits = jax.jit(lambda batch: program.evaluate(batch, [program.logits])[0])(batch)
    np.testing.assert_allclose(
        logits, jax.jit(Classifier.__call__)(model, batch), atol=1e-6
    )


def test_the_gradient_of_relu_at_zero_stays_zero():
    program = of_function(lambda x: jax.nn.relu(x - 0.5).sum((1, 2)))
    batch = jnp.full((2, 4, 4, 1), 0.5).at[:, 0, 0].set(1.0)
    score = lambda batch: program.evaluate(batch, [program.logits])[0].sum()
    gradient = jax.grad(score)(batch)
    assert gradient.sum() == 2 and (gradient[:, 0, 0] == 1).all()
    # That of the maximum, which is what the ReLU computes, is one half.
    assert jax.grad(lambda x: jnp.maximum(x, 0.0))(0.0) == 0.5


def test_what_the_logits_do_not_need_is_dropped():
    def logits(x):
        checkpoint_name(jnp.cos(x), "unused")
        return jnp.sin(x).mean((1, 2))

    program = of_function(logits)
    assert "cos" not in primitives(program) and "unused" not in program.named


def test_from_a_given_variable():
    def logits(x):
        doubled = checkpoint_name(2 * x, "doubled")
        squared = checkpoint_name(doubled**2, "squared")
        return (squared + x).sum((1, 2))  # a connection skips both

    program = of_function(logits)
    batch = jnp.ones((2, 4, 4, 1))
    doubled, squared = program.named["doubled"], program.named["squared"]
    of = lambda given: float(program.evaluate(batch, [program.logits], given)[0][0, 0])
    assert of({}) == 16 * 5
    assert of({doubled: 3 * batch}) == 16 * 10
    assert of({squared: 3 * batch}) == 16 * 4
    assert of({doubled: 9 * batch, squared: 3 * batch}) == 16 * 4
    given = program.evaluate(batch, [squared, doubled], {squared: 7 * batch})
    assert given[0][0, 0, 0, 0] == 7 and given[1][0, 0, 0, 0] == 2
    # What is given is not computed, so nothing of it may be needed.
    names = [x.primitive.name for x in program.needed_for(doubled)]
    assert "integer_pow" not in names and "mul" in names


def test_another_way_to_compute_a_variable():
    program = of_function(
        lambda x: checkpoint_name(jnp.sin(x), "sine").sum((1, 2)),
    )
    sine = program.named["sine"]
    ways = {sine: Rewrite((program.images,), lambda x: 3 * x)}
    batch = jnp.ones((2, 4, 4, 1))
    (logits,) = program.evaluate(batch, [program.logits], rewrites=ways)
    np.testing.assert_allclose(logits, 48)


def test_names():
    model, batch = classifier(), jnp.asarray(images(2))
    program = trace(model, batch)
    assert program.paths == ("conv1", "conv2", "bn2", "fc")
    assert not program.named
    program = trace(model, batch, ["conv2", "nothing"])
    assert list(program.named) == ["conv2"]

    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            conv = nn.Conv(3, (3, 3), name="conv")
            return conv(conv(x)).mean((1, 2))

    module = Twice()
    twice = Classifier(module.init(jax.random.key(0), batch, False), module)
    program = trace(twice, batch, ["conv"])
    (last,) = program.evaluate(batch, [program.named["conv"]])
    np.testing.assert_allclose(last.mean((1, 2)), twice(batch), atol=1e-6)


def test_what_depends_on_what():
    def logits(x):
        left = checkpoint_name(jnp.sin(x), "left")
        right = checkpoint_name(jnp.cos(x), "right")
        return checkpoint_name(left + right * jnp.ones(3).sum(), "both").sum((1, 2))

    program = of_function(logits)
    left, right, both = (program.named[x] for x in ("left", "right", "both"))
    assert program.is_computed_from(both, left)
    assert program.is_computed_from(left, left)
    assert not program.is_computed_from(right, left)
    assert program.is_computed_from(program.logits, program.images)
    assert not program.is_computed_from(program.images, left)
    assert all(map(program.is_active, (program.images, left, both)))
    constant = [e.outvars[0] for e in program.equations if not e.invars]
    assert not any(map(program.is_active, constant))
    assert reached((), left) == {left}


def test_weights_stay_arguments():
    """New ones neither trace nor compile again, and count."""
    traced = []

    @jax.jit
    def logits(model, batch):
        traced.append(None)
        program = trace(model, batch, ["conv1"])
        conv1 = program.named["conv1"]
        (maps,) = program.evaluate(batch, [conv1])
        return program.evaluate(batch, [program.logits], {conv1: maps})[0]

    batch = jnp.asarray(images(2))
    for seed in (0, 1):
        model = classifier(seed)
        expected = jax.jit(Classifier.__call__)(model, batch)
        np.testing.assert_allclose(logits(model, batch), expected, atol=1e-6)
    assert len(traced) == 1
    # And gradients reach them.
    loss = lambda model: logits(model, batch).sum()
    gradient = jax.grad(loss)(classifier()).variables["params"]["conv1"]["kernel"]
    assert np.abs(gradient).max() > 0


def test_loops_and_branches_stay_as_they_are():
    def logits(x):
        x, _ = jax.lax.scan(lambda x, _: (jnp.sin(x), None), x, length=3)
        return jax.lax.cond(True, jnp.sin, jnp.cos, x).mean((1, 2))

    program = of_function(logits)
    assert "scan" in primitives(program)
    batch = jnp.ones((2, 4, 4, 1))
    (found,) = program.evaluate(batch, [program.logits])
    np.testing.assert_allclose(found, logits(batch), rtol=1e-6)


def test_flattened_constants_and_several_results():
    table = jnp.arange(3.0)

    @jax.jit
    def function(x, y):
        return x + table, jax.jit(jnp.sin)(y)

    flat = flattened(jax.make_jaxpr(function)(jnp.ones(3), jnp.ones(2)))
    assert [x.primitive.name for x in flat.jaxpr.eqns] == ["add", "sin"]
    first, second = jaxpr_as_fun(flat)(jnp.ones(3), jnp.zeros(2))
    np.testing.assert_array_equal(first, [1, 2, 3])
    np.testing.assert_array_equal(second, 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_types_are_kept(dtype):
    model, batch = classifier(dtype=dtype), jnp.asarray(images(2))
    program = trace(model, batch, ["conv2"])
    wanted = [program.named["conv2"], program.logits]
    maps, logits = jax.jit(lambda batch: program.evaluate(batch, wanted))(batch)
    assert maps.dtype == dtype and logits.dtype == dtype
    np.testing.assert_allclose(
        logits.astype(jnp.float32),
        jax.jit(Classifier.__call__)(model, batch).astype(jnp.float32),
        atol=1e-2,
    )
