"""Class images: closed forms of linear classifiers, and what every option does."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.attribution.layers import Unit
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.synthesis import canvas
from saliency_jax.synthesis.class_image import LEGIBLE, class_image, moved, squares
from tests.attribution.small_network import SIZE, classifier

SIDE = 6
WEIGHTS = np.random.default_rng(0).normal(size=(3, SIDE, SIDE, 3)).astype(np.float32)


def linear(images):
    return jnp.einsum("byxc,kyxc->bk", images, WEIGHTS)


def with_biases():
    """The small network, which else has no gradient at the mean colour."""
    network = classifier()
    random = np.random.default_rng(3)
    params = {
        name: {
            what: jnp.asarray(random.normal(size=values.shape) * 0.3, jnp.float32)
            if what == "bias"
            else values
            for what, values in of_layer.items()
        }
        for name, of_layer in network.variables["params"].items()
    }
    return network.replace(variables={**network.variables, "params": params})


def made(targets, **options):
    options = {"image_size": SIDE, "steps": 300, "learning_rate": 0.01, **options}
    return class_image(linear, targets, **options)


def test_of_a_linear_classifier_it_is_the_weights_on_the_mean_colour():
    """`w I - penalty I^2` is greatest at `w / (2 penalty)`."""
    found = np.asarray(made(np.array([0, 2]), penalty=5.0, mean=(0.4, 0.5, 0.6)))
    expected = np.array([0.4, 0.5, 0.6]) + WEIGHTS[[0, 2]] / 10
    np.testing.assert_allclose(found, np.clip(expected, 0, 1), atol=2e-3)


def test_of_another_normalisation_it_is_the_same():
    """The penalty is of pixels in [0, 1], around the normalisation's mean."""
    own = Classifier.from_function(linear, mean=(0.5,) * 3, std=(0.5,) * 3)
    found = class_image(
        own, 1, image_size=SIDE, steps=300, learning_rate=0.01, penalty=5.0, mean=0.5
    )
    expected = np.clip(0.5 + WEIGHTS[1] / 0.5 / 10, 0, 1)
    np.testing.assert_allclose(found[0], expected, atol=5e-3)


def test_the_mean_is_the_normalisations():
    options = {"image_size": SIDE, "steps": 1, "learning_rate": 1e-9}
    network = classifier()
    image = class_image(network, 0, **{**options, "image_size": SIZE})
    expected = np.broadcast_to(network.mean, image.shape)
    np.testing.assert_allclose(image, expected, atol=1e-6)
    np.testing.assert_allclose(class_image(linear, 0, **options), 0.5, atol=1e-6)


def test_the_probability_gains_by_making_other_classes_less_likely():
    by_logit = made(0, penalty=5.0)
    by_probability = made(0, penalty=0.05, output="probability", steps=600)
    logits = np.asarray(linear(jnp.concatenate([by_logit, by_probability])))
    gained = logits - np.asarray(linear(jnp.full((1, SIDE, SIDE, 3), 0.5)))
    assert gained[0, 0] > 0.9 * np.abs(gained[0]).max()
    assert gained[1, 1:].mean() < -0.2 * gained[1, 0]


def test_total_variation_makes_neighbours_alike():
    rough, smooth = made(0, penalty=5.0), made(0, penalty=5.0, total_variation=20.0)
    differences = lambda x: float(squares(x[:, 1:] - x[:, :-1])[0])
    assert differences(smooth) < 0.2 * differences(rough)


def test_blur_comes_every_so_many_steps():
    options = {"steps": 4, "learning_rate": 0.05}
    never = made(0, **options)
    assert np.array_equal(made(0, blur=1.0, blur_every=5, **options), never)
    last = made(0, blur=1.0, blur_every=4, **options)
    expected = canvas.blurred(never - 0.5, 1.0, (SIDE, SIDE), "pixels") + 0.5
    np.testing.assert_allclose(last, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
@pytest.mark.parametrize("kind", ["pixels", "fourier"])
def test_an_empty_canvas_is_the_mean_colour(size, kind):
    mean = jnp.array([0.2, 0.5, 0.9]).reshape(1, 1, 1, 3)
    blank = canvas.blank(2, size, kind)
    images = canvas.to_images(blank, mean, size, kind)
    assert images.shape == (2, *size, 3)
    np.testing.assert_allclose(images, np.broadcast_to(mean, images.shape), atol=1e-6)


def test_the_blur_of_waves_is_that_of_pixels_around_the_edges():
    size, rng = (16, 16), np.random.default_rng(1)
    waves = rng.normal(size=(1, 16, 9, 3)) + 1j * rng.normal(size=(1, 16, 9, 3))
    waves = jnp.asarray(waves, jnp.complex64)
    show = lambda x: np.asarray(
        canvas.to_images(x, jnp.full((1, 1, 1, 3), 0.5), size, "fourier")
    )
    logit = lambda x: np.log(x / (1 - x))
    before = logit(show(waves))
    after = logit(show(canvas.blurred(waves, 1.5, size, "fourier")))
    offsets = (np.arange(16) + 8) % 16 - 8
    kernel = np.exp(-0.5 * (offsets / 1.5) ** 2)
    matrix = np.stack([np.roll(kernel / kernel.sum(), i) for i in range(16)])
    expected = np.einsum("hy,wx,byxc->bhwc", matrix, matrix, before)
    np.testing.assert_allclose(after, expected, atol=2e-4)


def test_colours_of_waves_have_the_covariance_of_photographs():
    rng = np.random.default_rng(2)
    size = (32, 32)
    noise = np.fft.rfft2(rng.normal(size=(40, *size, 3)), axes=(1, 2), norm="ortho")
    logits = canvas.to_images(
        jnp.asarray(noise, jnp.complex64), jnp.full((1, 1, 1, 3), 0.5), size, "fourier"
    )
    pixels = np.log(logits / (1 - logits)).reshape(-1, 3)
    expected = canvas.COLOURS @ canvas.COLOURS.T
    found = np.cov(pixels.T)
    np.testing.assert_allclose(
        found / found[0, 0], expected / expected[0, 0], atol=0.05
    )


def test_fourier_climbs_and_stays_in_range():
    """A step up the gradient of complex amplitudes raises the score."""
    plain = float(linear(jnp.full((1, SIDE, SIDE, 3), 0.5))[0, 0])
    image, aux = made(
        0, parametrisation="fourier", penalty=0.0, learning_rate=0.05, return_aux=True
    )
    assert 0 <= image.min() and image.max() <= 1
    scores = np.asarray(aux["scores"][0])
    assert scores[0] == pytest.approx(plain, abs=1e-4)
    assert np.all(np.diff(scores[:50]) > 0)
    best = float(np.maximum(WEIGHTS[0], 0).sum())
    assert scores[-1] > plain + 0.5 * (best - plain)


def test_jitter_moves_each_image_in_its_own_way_by_a_few_pixels():
    keys = jax.random.split(jax.random.key(0), 64)
    image = jnp.zeros((64, 9, 9, 3)).at[:, 4, 4].set(1.0)
    places = np.argwhere(np.asarray(moved(keys, image, 2, (1.0, 1.0)))[..., 0])
    shifts = places[:, 1:] - 4
    assert set(np.unique(shifts)) == {-2, -1, 0, 1, 2}
    assert len(np.unique(shifts, axis=0)) > 10
    # what leaves the image does not come in on the other side
    corner = jnp.zeros((64, 9, 9, 3)).at[:, 0, 0].set(1.0)
    left = np.argwhere(
        np.asarray(moved(jax.random.clone(keys), corner, 2, (1.0, 1.0)))[..., 0]
    )
    assert 0 < len(left) < 64 and left[:, 1:].max() == 2


def test_zoom_scales_about_the_centre():
    keys = jax.random.split(jax.random.key(0), 64)
    ones = jnp.ones((64, 64, 64, 3))
    seen = np.asarray(moved(keys, ones, 0, (0.25, 0.75)))[..., 0]
    sides = np.sqrt(seen.sum(axis=(1, 2)))
    assert 15.9 < sides.min() < 18 and 44 < sides.max() < 48.1
    # of the logarithm all values are as likely
    assert np.median(sides) == pytest.approx(np.sqrt(16 * 48), rel=0.15)
    np.testing.assert_allclose(seen, seen[:, ::-1, ::-1], atol=1e-5)
    larger = np.asarray(moved(jax.random.clone(keys), ones, 0, (2.0, 2.0)))
    np.testing.assert_allclose(larger, 1, atol=1e-5)


def test_a_smooth_canvas_has_weaker_short_waves_and_no_more_variance():
    size = (32, 32)
    plain, smooth = (canvas._amplitudes(size, power) for power in (1.0, 1.5))
    ratio = smooth / plain
    frequency = np.hypot(np.fft.fftfreq(32)[:, None], np.fft.rfftfreq(32)[None])
    order = np.argsort(frequency, axis=None)
    assert np.all(np.diff(ratio.flatten()[order]) <= 1e-6)
    np.testing.assert_allclose(ratio[0, 16] / ratio[0, 1], (1 / 16) ** 0.5, rtol=1e-5)
    rng = np.random.default_rng(0)
    noise = np.fft.rfft2(rng.normal(size=(200, *size)), norm="ortho")
    for weights in (plain, smooth):
        pixels = np.fft.irfft2(noise * weights, s=size, norm="ortho")
        assert pixels.var() == pytest.approx(1, rel=0.1)


def test_several_at_once_are_each_by_itself_whatever_the_batch_size():
    model, targets = with_biases(), np.array([0, 3, 1])
    options = {"image_size": SIZE, **LEGIBLE, "jitter": 2, "steps": 5}
    together = class_image(model, targets, **options)
    parts = class_image(model, targets, batch_size=2, **options)
    np.testing.assert_allclose(together, parts, atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_units_of_a_layer_and_functions_of_the_logits():
    model = with_biases()
    options = {"image_size": SIZE, "steps": 20, "penalty": 0.0, "return_aux": True}
    units = Unit(np.array([0, 3]), (2, 1), "bn2")
    images, aux = class_image(model, units, **options)
    assert images.shape == (2, SIZE, SIZE, 3)
    assert np.all(aux["scores"][:, -1] > aux["scores"][:, 0])
    # Far from the units' field of view nothing moves.
    still = np.asarray(images)[:, -3:] - np.asarray(model.mean, np.float32)
    np.testing.assert_allclose(still, 0, atol=1e-6)
    difference, aux = class_image(model, lambda x: x[0] - x[1], **options)
    logits = model(difference)[0]
    assert logits[0] - logits[1] > aux["scores"][0, 0]


def test_a_progress_bar_ends_where_the_steps_do(capsys):
    for steps in (3, 250):
        made(np.array([0, 1]), steps=steps, batch_size=1, progress=True)
        assert f"{2 * steps}/{2 * steps}" in capsys.readouterr().err
    made(0, steps=2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (None, {}, "class_image needs targets"),
        (3, {}, "target 3: the classifier knows classes 0 to 2"),
        (0, {"steps": 0}, "steps is 0"),
        (0, {"image_size": 0}, "image_size is 0"),
        (0, {"penalty": -1.0}, "penalty is -1.0"),
        (0, {"learning_rate": 0.0}, "learning_rate is 0.0"),
        (0, {"output": "loss"}, "output='loss' is unknown: use one of"),
        (0, {"parametrisation": "waves"}, "parametrisation='waves' is unknown"),
        (0, {"mean": (0.5, 0.5)}, "mean of shape"),
    ],
)
def test_what_does_not_fit_is_refused(targets, options, message):
    options = {"image_size": SIDE, **options}
    with pytest.raises(InputError, match=message):
        inspect.unwrap(class_image)(linear, targets, **options)
