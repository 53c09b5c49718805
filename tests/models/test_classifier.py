"""The classifier as a pytree, and the normalisation that belongs to it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import saliency_jax
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Classifier,
    normalise,
)
from saliency_jax.models.resnet import ResNet
from tests.models import reproducible


@pytest.fixture(scope="module")
def classifier():
    module = ResNet((1, 1), False, 5, width=4, stem="small_stride2")
    variables = reproducible.variables(module, jnp.zeros((1, 16, 16, 3)))
    return Classifier(variables, module, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def images():
    shape = (3, 16, 16, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def count_traces():
    """A jitted function of (classifier, images), and a list as long as its traces."""
    traces = []

    @jax.jit
    def logits_of(classifier, images):
        traces.append(1)
        return classifier(images)

    return logits_of, traces


def test_normalise_by_hand():
    pixel = np.array([[[[255, 0, 51]]]], np.uint8)
    expected = np.array([(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225])
    for image in (pixel, (pixel / 255.0).astype(np.float32)):
        result = normalise(image, IMAGENET_MEAN, IMAGENET_STD)
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result[0, 0, 0], expected, rtol=1e-6)


def test_normalise_refuses_integers_of_unknown_range():
    with pytest.raises(InputError, match="int32.*uint8"):
        normalise(jnp.zeros((1, 2, 2, 3), jnp.int32))


def test_bytes_and_unit_floats_give_the_same_logits(classifier, images):
    logits, taps = classifier.features(images)
    assert logits.shape == (3, 5)
    assert len(taps) == 3  # the stem and two stages
    np.testing.assert_array_equal(classifier(images), logits)
    floats = jnp.asarray(images, jnp.float32) / 255.0
    np.testing.assert_allclose(classifier(floats), logits, atol=1e-5)
    normalised = normalise(images, classifier.mean, classifier.std)
    direct, _ = classifier.module.apply(classifier.variables, normalised, False)
    np.testing.assert_array_equal(direct, logits)


def test_new_weights_do_not_recompile(classifier, images):
    logits_of, traces = count_traces()
    first = logits_of(classifier, images)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, classifier)
    second = logits_of(doubled, images)
    assert len(traces) == 1
    assert jnp.abs(first - second).max() > 0


def mean_colour(weights, images):
    return images.mean((1, 2)) @ weights


def test_a_function_sees_images_in_the_unit_interval(images):
    classifier = Classifier.from_function(lambda images: images.mean((1, 2)))
    expected = images.mean((1, 2)) / 255
    np.testing.assert_allclose(classifier(images), expected, atol=1e-5)
    floats = images.astype(np.float32) / 255
    np.testing.assert_allclose(classifier(floats), expected, atol=1e-5)
    assert classifier.features(images)[1] == ()
    assert jax.tree.leaves(classifier) == []


def test_a_function_with_a_normalisation(images):
    classifier = Classifier.from_function(
        lambda images: images.mean((1, 2)), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)
    )
    expected = (images.mean((1, 2)) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    np.testing.assert_allclose(classifier(images), expected, atol=1e-5)


def test_a_functions_weights_may_be_leaves(images):
    logits_of, traces = count_traces()
    for factor in (1.0, 2.0):
        weights = factor * jnp.eye(3, 2)
        function = jax.tree_util.Partial(mean_colour, weights)
        classifier = Classifier.from_function(function)
        (leaf,) = jax.tree.leaves(classifier)
        np.testing.assert_array_equal(leaf, weights)
        logits = logits_of(classifier, images)
        expected = factor * images.mean((1, 2))[:, :2] / 255
        np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert len(traces) == 1


def test_a_function_is_traced_once(images):
    logits_of, traces = count_traces()
    function = lambda images: images.mean((1, 2))
    for _ in range(2):
        logits_of(Classifier.from_function(function), images)
    assert len(traces) == 1


class Colour(nn.Module):
    """Logits alone."""

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(2)(images.mean((1, 2)))


def test_a_module_that_gives_logits_alone(images):
    module = Colour()
    variables = {"params": {"Dense_0": {"kernel": jnp.eye(3, 2), "bias": jnp.ones(2)}}}
    classifier = Classifier(variables, module, mean=[0.0] * 3, std=[1.0] * 3)
    logits, taps = classifier.features(images)
    assert taps == ()
    expected = images.mean((1, 2))[:, :2] / 255 + 1
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_array_equal(classifier(images), logits)


class Regularised(nn.Module):
    """With the arguments of Flax's own layers in the place of `train`."""

    def setup(self):
        self.dropout = nn.Dropout(0.5)

    def answer(self, images, off):
        return self.dropout(images.mean((1, 2)), deterministic=off)


class Deterministic(Regularised):
    def __call__(self, images, deterministic):
        return self.answer(images, deterministic)


class Training(Regularised):
    def __call__(self, images, *, training=True):
        return self.answer(images, not training)


class Plain(Regularised):
    def __call__(self, images):
        return self.answer(images, True)


class ByDefault(Regularised):
    def __call__(self, images, scale=1.0):
        return scale * self.answer(images, True)


class ByAnotherName(Regularised):
    def __call__(self, images, update_stats=True):
        return self.answer(images, not update_stats)


class Anything(Regularised):
    def __call__(self, *arguments):
        return self.answer(arguments[0], not arguments[1])


class Both(Regularised):
    def __call__(self, images, train=True, *, deterministic=False):
        return self.answer(images, deterministic and not train)


class ByPlace(Regularised):
    def __call__(self, images, train):
        return self.answer(images, not train)


KINDS = [
    Deterministic,
    Training,
    Plain,
    ByDefault,
    ByAnotherName,
    Anything,
    Both,
    nn.remat(ByPlace, static_argnums=(2,)),
    nn.jit(ByPlace, static_argnums=(2,)),
    lambda: nn.Sequential([ByPlace()]),
    lambda: nn.Sequential([lambda images: images, Plain()]),
    lambda: nn.Sequential([Plain()]),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_is_told_not_to_train_in_its_own_words(images, kind):
    logits = Classifier({}, kind(), (0.0,) * 3, (1.0,) * 3)(images)
    np.testing.assert_allclose(logits, images.mean((1, 2)) / 255, atol=1e-5)


def test_a_module_with_another_argument_is_told(images):
    class Mixed(nn.Module):
        def __call__(self, images, temperature):
            return images.mean((1, 2)) / temperature

    with pytest.raises(InputError, match=r"Mixed is called with temperature .*Partial"):
        Classifier({}, Mixed())(images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[0], r"\(16, 16, 3\): expected \[B, H, W, C\], as images\[None\]"),
        (lambda x: x.transpose(0, 3, 1, 2), r"channels first: .*transpose\(0, 2, 3"),
        (
            lambda x: x.repeat(2, 3)[..., :4],
            r"16, 4\) .* mean and std are of 3 ch",
        ),
        (lambda x: x[..., :1], r"16, 1\) for a classifier whose mean and std are of 3"),
        (lambda x: x * np.float32("nan"), "NaN or infinite"),
    ],
)
def test_images_that_are_none_of_its_own(classifier, images, change, message):
    with pytest.raises(InputError, match=message):
        classifier(change(images))


def test_one_mean_is_of_all_channels(images):
    expected = (images / 255 - 0.5).mean((1, 2)) / 0.25
    for mean, std in (((0.5,), (0.25,)), (0.5, 0.25)):
        classifier = Classifier({}, Plain(), mean, std)
        np.testing.assert_allclose(classifier(images), expected, atol=1e-5)
        assert classifier(images[:0]).shape == (0, 3)


def test_labels_are_static_and_as_many_as_logits(images):
    logits_of, traces = count_traces()
    function = lambda images: images.mean((1, 2))
    for labels in (["red", "green", "blue"], ("red", "green", "blue")):
        classifier = Classifier.from_function(function, labels=labels)
        assert classifier.labels == ("red", "green", "blue")
        logits_of(classifier, images)
    assert len(traces) == 1
    with pytest.raises(InputError, match="2 labels for 3 logits: name every class"):
        Classifier.from_function(function, labels=("red", "green"))(images)


def test_an_unknown_output_is_refused():
    logits_fn = lambda images: images.mean((1, 2))
    assert Classifier.from_function(logits_fn, output="sigmoid").output == "sigmoid"
    with pytest.raises(InputError, match="unknown output 'argmax' of a classifier"):
        Classifier.from_function(logits_fn, output="argmax")


def test_it_is_exported():
    assert saliency_jax.Classifier is Classifier


def test_gradient_and_vmap_go_through(classifier, images):
    floats = jnp.asarray(images, jnp.float32) / 255.0
    gradient = jax.jit(jax.grad(lambda c, x: c(x)[:, 0].sum(), argnums=(0, 1)))
    by_weights, by_pixels = gradient(classifier, floats)
    assert jnp.abs(by_weights.variables["params"]["fc"]["kernel"]).max() > 0
    assert jnp.abs(by_pixels).max() > 0
    one_by_one = jax.vmap(lambda x: classifier(x[None])[0])(floats)
    np.testing.assert_allclose(one_by_one, classifier(floats), atol=1e-5)
