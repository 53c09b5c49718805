"""The same weights and images give what captum gives.

captum is called as its users call it, with normalised images; a `Classifier` normalises
images in [0, 1] itself. So a gradient here is captum's divided by the standard
deviation of the normalisation, and an attribution, which is a gradient times a
difference of inputs, is the same.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:Setting .* hooks"),
]
torch = pytest.importorskip("torch")
pytest.importorskip("captum")

from captum import attr  # noqa: E402
from captum.attr._utils import lrp_rules  # noqa: E402

from saliency_jax import prng  # noqa: E402
from saliency_jax.attribution import (  # noqa: E402
    deconvnet,
    expected_gradients,
    grad_cam,
    gradient,
    guided_backprop,
    guided_grad_cam,
    input_x_gradient,
    integrated_gradients,
    kernel_shap,
    lime,
    lrp,
    occlusion,
    smooth_grad,
    smooth_grad_squared,
    var_grad,
)
from saliency_jax.attribution.layers import Unit, as_layer, cut  # noqa: E402
from saliency_jax.attribution.perturbation import linear_surrogate  # noqa: E402
from tests.attribution import torch_twins  # noqa: E402
from tests.models import torch_resnet  # noqa: E402
from tests.models.torch_resnet import from_torch  # noqa: E402

TOLERANCE = 1e-3

twins_of = functools.cache(lambda name: torch_twins.TWINS[name]())
on_both = pytest.mark.parametrize("name", torch_twins.TWINS)


def assert_same(maps, expected, tolerance=TOLERANCE):
    """The greatest difference, on the scale of the greatest value."""
    maps = np.asarray(maps)
    if isinstance(expected, torch.Tensor):
        expected = from_torch(expected)
    assert maps.shape == expected.shape
    scale = np.abs(expected).max()
    error = np.abs(maps - expected).max() / scale
    print(f"relative error {error:.1e}")
    assert scale > 0 and error < tolerance


def by_pixel_value(twins, gradients):
    """captum's gradients, of normalised pixels, as those of pixels in [0, 1]."""
    return from_torch(gradients) / np.float32(twins.classifier.std)


def active_channel(twins, module):
    """A channel of a layer that is not switched off at row 1 and column 1."""
    values = attr.LayerActivation(twins.module, module).attribute(twins.inputs)
    return int(values[:, :, 1, 1].amin(dim=0).argmax())


@on_both
def test_logits(name):
    twins = twins_of(name)
    with torch.no_grad():
        expected = twins.module(twins.inputs).numpy()
    np.testing.assert_allclose(twins.classifier(twins.images), expected, atol=1e-4)
    assert expected.std() > 0.1


@on_both
def test_saliency(name):
    """captum keeps the channels, and their absolute values unless `abs=False`."""
    twins = twins_of(name)
    asked = twins.classifier, twins.images, twins.targets
    saliency = attr.Saliency(twins.module).attribute
    signed = saliency(twins.inputs, twins.labels, abs=False)
    expected = by_pixel_value(twins, signed)
    assert_same(gradient(*asked, reduction=None), expected)
    absolute = saliency(twins.inputs, twins.labels)
    expected = by_pixel_value(twins, absolute)
    assert_same(gradient(*asked), expected.max(axis=-1))
    assert_same(gradient(*asked, reduction="sum_abs"), expected.sum(axis=-1))


@on_both
def test_input_x_gradient(name):
    twins = twins_of(name)
    asked = twins.classifier, twins.images, twins.targets
    product = attr.InputXGradient(twins.module).attribute(twins.inputs, twins.labels)
    assert_same(input_x_gradient(*asked, reduction=None), product)
    assert_same(input_x_gradient(*asked), from_torch(product).sum(axis=-1))


@on_both
def test_gradient_x_activation_of_a_layer(name):
    twins = twins_of(name)
    for layer, module in twins.layers.items():
        maps = input_x_gradient(
            twins.classifier,
            twins.images,
            twins.targets,
            layer=layer,
            reduction=None,
            upsampling=None,
        )
        method = attr.LayerGradientXActivation(twins.module, module)
        assert_same(maps, method.attribute(twins.inputs, twins.labels))


@on_both
def test_activations_of_a_layer(name):
    twins = twins_of(name)
    for layer, module in twins.layers.items():
        parts = cut(twins.classifier, jnp.asarray(twins.images), as_layer(layer))
        expected = attr.LayerActivation(twins.module, module).attribute(twins.inputs)
        assert_same(parts.activations(jnp.asarray(twins.images)), expected)


@on_both
def test_gradient_of_a_unit(name):
    twins = twins_of(name)
    for layer, module in twins.layers.items():
        channel = active_channel(twins, module)
        method = attr.NeuronGradient(twins.module, module)
        neuron = method.attribute(twins.inputs, (channel, 1, 1))
        unit = Unit(channel, (1, 1), layer)
        maps = gradient(twins.classifier, twins.images, unit, reduction=None)
        assert_same(maps, by_pixel_value(twins, neuron))


def noise_of(twins, key, samples, sigma):
    """The noise on the images of `smooth_grad`, by its definition."""
    keys = [jax.random.fold_in(key, i) for i in range(samples)]
    draws = [jax.random.normal(key, twins.images.shape[1:]) for key in keys]
    return np.stack(draws) * np.float32(sigma)


@pytest.mark.parametrize(
    ("captum_type", "method", "power"),
    [
        ("smoothgrad", smooth_grad, 1),
        ("smoothgrad_sq", smooth_grad_squared, 2),
        ("vargrad", var_grad, 2),
    ],
)
def test_noise_tunnel(captum_type, method, power, monkeypatch):
    """captum's `stdevs` is of normalised images: here `sigma=stdevs * std`.

    It draws other noise, so it is given this package's.
    """
    twins = twins_of("small")
    std = np.float32(twins.classifier.std)
    samples, stdevs, key = 6, 0.4, jax.random.key(3)
    noise = noise_of(twins, key, samples, stdevs)
    noise = torch_resnet.to_torch(noise).repeat(len(twins.images), 1, 1, 1)
    monkeypatch.setattr(
        attr.NoiseTunnel,
        "_add_noise_to_input",
        staticmethod(lambda x, _, count: x.repeat_interleave(count, dim=0) + noise),
    )
    expected = attr.NoiseTunnel(attr.Saliency(twins.module)).attribute(
        twins.inputs,
        nt_type=captum_type,
        nt_samples=samples,
        stdevs=stdevs,
        target=twins.labels,
        abs=False,
    )
    maps = method(
        twins.classifier,
        twins.images,
        twins.targets,
        key=key,
        samples=samples,
        sigma=stdevs * std,
        reduction=None,
    )
    assert_same(maps, from_torch(expected) / std**power)


QUADRATURES = {
    "gausslegendre": "gauss_legendre",
    "riemann_middle": "midpoint",
    "riemann_trapezoid": "captum_trapezoid",
}


@pytest.mark.parametrize(
    ("name", "captum_method"),
    [*(("small", rule) for rule in QUADRATURES), ("resnet", "gausslegendre")],
)
def test_integrated_gradients(name, captum_method):
    twins = twins_of(name)
    steps = 7
    method = attr.IntegratedGradients(twins.module)
    arguments = {"target": twins.labels, "n_steps": steps, "method": captum_method}
    random = np.random.default_rng(1)
    image = random.uniform(size=twins.images.shape[1:]).astype(np.float32)
    for baseline in (None, image):
        if baseline is not None:
            arguments["baselines"] = twins.normalised(baseline[None])
        expected = method.attribute(twins.inputs, **arguments)
        maps = integrated_gradients(
            twins.classifier,
            twins.images,
            twins.targets,
            steps=steps,
            quadrature=QUADRATURES[captum_method],
            baseline=baseline,
            reduction=None,
        )
        assert_same(maps, expected)


@on_both
def test_integrated_gradients_of_a_layer(name):
    twins = twins_of(name)
    for layer, module in twins.layers.items():
        maps = integrated_gradients(
            twins.classifier,
            twins.images,
            twins.targets,
            steps=7,
            quadrature="gauss_legendre",
            layer=layer,
            reduction=None,
            upsampling=None,
        )
        method = attr.LayerIntegratedGradients(twins.module, module)
        arguments = {"target": twins.labels, "n_steps": 7}
        assert_same(maps, method.attribute(twins.inputs, **arguments))


def test_completeness_gap():
    twins = twins_of("small")
    _, expected = attr.IntegratedGradients(twins.module).attribute(
        twins.inputs, target=twins.labels, n_steps=7, return_convergence_delta=True
    )
    _, aux = integrated_gradients(
        twins.classifier,
        twins.images,
        twins.targets,
        steps=7,
        quadrature="gauss_legendre",
        return_aux=True,
    )
    # A difference of numbers of order one.
    gap = np.asarray(aux["completeness_gap"])
    np.testing.assert_allclose(gap, expected.numpy(), atol=1e-4)
    assert np.abs(gap).max() > 1e-3


@pytest.mark.parametrize("stdevs", [0.0, 0.3])
def test_gradient_shap_of_the_same_draws(stdevs, monkeypatch):
    """captum is given this package's references, points and noise, by their law."""
    twins = twins_of("small")
    std, count = np.float32(twins.classifier.std), len(twins.images)
    samples, key = 6, jax.random.key(3)
    shape = twins.images.shape[1:]
    references = np.random.default_rng(1).uniform(size=(4, *shape)).astype(np.float32)
    numbers, points = [], []
    for i in range(samples):
        of_reference, of_point = jax.random.split(jax.random.fold_in(key, i))
        numbers.append(int(jax.random.randint(of_reference, (), 0, 4)))
        points.append(float(jax.random.uniform(of_point)))
    keys = [prng.stream_key(key, "noise", i) for i in range(samples)]
    noise = np.stack([jax.random.normal(key, shape) for key in keys])
    noise = torch_resnet.to_torch(np.float32(stdevs) * noise).repeat(count, 1, 1, 1)
    # captum asks for one of each pair of an image and a sample.
    monkeypatch.setattr(np.random, "choice", lambda *_: np.tile(numbers, count))
    monkeypatch.setattr(np.random, "uniform", lambda *_: np.tile(points, count))
    monkeypatch.setattr(
        attr.NoiseTunnel,
        "_add_noise_to_input",
        staticmethod(lambda x, _, count: x.repeat_interleave(count, dim=0) + noise),
    )
    expected = attr.GradientShap(twins.module).attribute(
        twins.inputs,
        twins.normalised(references),
        n_samples=samples,
        stdevs=stdevs,
        target=twins.labels,
    )
    maps = expected_gradients(
        twins.classifier,
        twins.images,
        twins.targets,
        key=key,
        references=references,
        samples=samples,
        points="independent",
        sigma=stdevs * std if stdevs else None,
        reduction=None,
    )
    assert_same(maps, expected)


def test_gradient_shap():
    """Both are random; with one reference both tend to integrated gradients.

    captum draws points of the line independently, here each lies in its own part of
    the line, so the same number of samples comes nearer.
    """
    twins = twins_of("small")
    random = np.random.default_rng(1)
    reference = random.uniform(size=(1, *twins.images.shape[1:])).astype(np.float32)
    baselines = twins.normalised(reference)
    limit = attr.IntegratedGradients(twins.module).attribute(
        twins.inputs,
        baselines=baselines,
        target=twins.labels,
        n_steps=2000,
        method="riemann_middle",
    )
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002  captum draws with it
    by_captum = attr.GradientShap(twins.module).attribute(
        twins.inputs, baselines, n_samples=500, stdevs=0.0, target=twins.labels
    )
    maps = expected_gradients(
        twins.classifier,
        twins.images,
        twins.targets,
        references=reference,
        samples=500,
        reduction=None,
    )
    assert_same(maps, limit, 1e-2)
    assert_same(from_torch(by_captum), limit, 0.2)


@on_both
def test_grad_cam(name):
    """captum has no ReLU by default (`variant="captum"`), and leaves the layer's size.

    Its `LayerAttribution.interpolate` is bilinear or, by default, nearest; the latter
    is the same where the images' sides are multiples of the layer's.
    """
    twins = twins_of(name)
    size = twins.images.shape[1:3]
    for layer, module in twins.layers.items():
        method = attr.LayerGradCam(twins.module, module)
        for variant, relu in (("paper", True), ("captum", False)):
            expected = method.attribute(
                twins.inputs, twins.labels, relu_attributions=relu
            )
            asked = twins.classifier, twins.images, twins.targets
            maps = functools.partial(grad_cam, *asked, layer=layer, variant=variant)
            assert_same(maps(upsampling=None), from_torch(expected)[..., 0])
            multiple = not any(np.mod(size, expected.shape[2:]))
            for mode in ("bilinear", "nearest") if multiple else ("bilinear",):
                larger = attr.LayerAttribution.interpolate(expected, size, mode)
                assert_same(maps(upsampling=mode), from_torch(larger)[..., 0])


@on_both
@pytest.mark.parametrize(
    ("captum_class", "method"),
    [(attr.GuidedBackprop, guided_backprop), (attr.Deconvolution, deconvnet)],
)
def test_backward_rules_of_relu(name, captum_class, method):
    twins = twins_of(name)
    expected = captum_class(twins.module).attribute(twins.inputs, twins.labels)
    maps = method(twins.classifier, twins.images, twins.targets, reduction=None)
    assert_same(maps, by_pixel_value(twins, expected))


@on_both
@pytest.mark.parametrize(
    ("captum_class", "method"),
    [
        (attr.NeuronGuidedBackprop, guided_backprop),
        (attr.NeuronDeconvolution, deconvnet),
    ],
)
def test_backward_rules_of_relu_from_a_unit(name, captum_class, method):
    twins = twins_of(name)
    layer, module = next(iter(twins.layers.items()))
    channel = active_channel(twins, module)
    neuron = captum_class(twins.module, module)
    expected = neuron.attribute(twins.inputs, (channel, 1, 1))
    unit = Unit(channel, (1, 1), layer)
    maps = method(twins.classifier, twins.images, unit, reduction=None)
    assert_same(maps, by_pixel_value(twins, expected))


CAPTUM_RULES = {
    "epsilon": (lrp_rules.EpsilonRule, {"rule": "epsilon", "epsilon": 1e-9}),
    "gamma": (
        lrp_rules.GammaRule,
        {"rule": "gamma", "gamma": 0.25, "epsilon": 1e-9, "variant": "captum"},
    ),
    "alpha 1, beta 0": (
        lrp_rules.Alpha1_Beta0_Rule,
        {"rule": "alpha_beta", "alpha": 1.0, "epsilon": 1e-9, "variant": "captum"},
    ),
}


@pytest.mark.parametrize("rule", CAPTUM_RULES)
def test_lrp(rule):
    """captum has a rule for BatchNorm by itself; here it is folded into the weights.

    So captum gets a network whose BatchNorm has been folded. By `variant="captum"`
    contributions go by the sign of the weights alone.
    """
    twins = twins_of("small")
    module = torch_twins.folded(twins)
    captum_rule, options = CAPTUM_RULES[rule]
    for layer in (module.conv1, module.conv2, module.fc):
        layer.rule = captum_rule()
    expected = attr.LRP(module).attribute(twins.inputs, twins.labels)
    maps = lrp(twins.classifier, twins.images, twins.targets, reduction=None, **options)
    assert_same(maps, expected)


def test_lrp_with_batch_norm():
    """With a small epsilon, a rule for BatchNorm by itself makes no difference."""
    twins = twins_of("small")
    expected = attr.LRP(twins.module).attribute(twins.inputs, twins.labels)
    maps = lrp(
        twins.classifier,
        twins.images,
        twins.targets,
        rule="epsilon",
        epsilon=1e-9,
        reduction=None,
    )
    assert_same(maps, expected)


@on_both
@pytest.mark.parametrize(("patch", "stride"), [((5, 4), (3, 4)), ((4, 4), (4, 4))])
def test_occlusion(name, patch, stride):
    """captum cuts off the last patch at the border, and takes the mean, as here."""
    twins = twins_of(name)
    scale = twins.images.shape[1] // 16
    patch, stride = (tuple(scale * x for x in sides) for sides in (patch, stride))
    expected = attr.Occlusion(twins.module).attribute(
        twins.inputs.detach(),
        sliding_window_shapes=(3, *patch),
        strides=(3, *stride),
        target=twins.labels,
        perturbations_per_eval=10,
    )
    asked = twins.classifier, twins.images, twins.targets
    maps = occlusion(*asked, patch_size=patch, stride=stride)
    assert_same(maps, from_torch(expected)[..., 0])


def segments_of(twins, borders):
    """Some of different sizes, the same for all images."""
    rows, columns = (np.arange(side) for side in twins.images.shape[1:3])
    across = np.digitize(columns, borders)
    return np.add.outer((len(borders) + 1) * (rows > 5), across)


def test_feature_ablation():
    """Of equal rectangles it is occlusion whose stride is the patch."""
    twins = twins_of("small")
    rows, columns = (np.arange(side) // 4 for side in twins.images.shape[1:3])
    expected = attr.FeatureAblation(twins.module).attribute(
        twins.inputs.detach(),
        target=twins.labels,
        feature_mask=torch.from_numpy(np.add.outer(4 * rows, columns))[None, None],
    )
    asked = twins.classifier, twins.images, twins.targets
    maps = occlusion(*asked, patch_size=4, stride=4)
    assert_same(maps, from_torch(expected)[..., 0])


def test_shapley_values():
    """With few segments all coalitions are asked, and KernelSHAP is exact."""
    twins = twins_of("small")
    segments = segments_of(twins, (7,))
    expected = attr.ShapleyValues(twins.module).attribute(
        twins.inputs.detach(),
        target=twins.labels,
        feature_mask=torch.from_numpy(segments)[None, None],
        perturbations_per_eval=8,
    )
    maps = kernel_shap(
        twins.classifier,
        twins.images,
        twins.targets,
        segments=segments,
        output="logit",
    )
    assert_same(maps, from_torch(expected)[..., 0])


class Ridge:
    """The regression of `lime` for captum, whose own is a lasso of scikit-learn."""

    def fit(self, batches):
        ((features, answers, weights),) = (map(np.float64, batch) for batch in batches)
        design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
        penalty = np.diag([1.0] * features.shape[1] + [0.0])
        normal = design.T @ (weights[:, None] * design) + penalty
        self.coefficients = np.linalg.solve(normal, design.T @ (weights * answers))

    def representation(self):
        return torch.from_numpy(self.coefficients[None, :-1]).float()


def test_lime():
    """captum's distances, with this package's draws and ridge regression.

    captum fits a lasso, of 50 samples in which every segment may be hidden; here it is
    a ridge regression as in LIME, and the first sample is the image.
    """
    twins = twins_of("small")
    segments, key, samples = segments_of(twins, (4, 11)), jax.random.key(3), 40
    count = segments.max() + 1
    used = jnp.arange(64) < count
    numbers = jnp.arange(samples)
    shown = [linear_surrogate.draw(key, i, used, samples) for i in numbers]

    def draws(_, **__):
        for one in shown:
            yield torch.from_numpy(np.array(one[:count])).long()[None]

    expected = [
        attr.Lime(twins.module, Ridge(), perturb_func=draws).attribute(
            twins.inputs.detach()[i : i + 1],
            target=int(twins.targets[i]),
            feature_mask=torch.from_numpy(segments)[None, None],
            n_samples=samples,
        )
        for i in range(len(twins.images))
    ]
    maps = lime(
        twins.classifier,
        twins.images,
        twins.targets,
        key=key,
        segments=segments,
        samples=samples,
        value=None,
        variant="captum",
        output="logit",
    )
    assert_same(maps, from_torch(torch.cat(expected))[..., 0])


def test_lrp_of_a_layer():
    twins = twins_of("small")
    module = torch_twins.folded(twins)
    expected = attr.LayerLRP(module, module.conv1).attribute(twins.inputs, twins.labels)
    maps = lrp(
        twins.classifier,
        twins.images,
        twins.targets,
        rule="epsilon",
        epsilon=1e-9,
        layer="conv1",
        reduction=None,
        upsampling=None,
    )
    assert_same(maps, expected)


def test_guided_grad_cam():
    """captum enlarges Grad-CAM to the nearest cell by default, here bilinear."""
    twins = twins_of("small")
    for layer in ("tap_0", "conv2"):
        method = attr.GuidedGradCam(twins.module, twins.layers[layer])
        for mode in ("nearest", "bilinear"):
            expected = method.attribute(
                twins.inputs, twins.labels, interpolate_mode=mode
            )
            maps = guided_grad_cam(
                twins.classifier,
                twins.images,
                twins.targets,
                layer=layer,
                reduction=None,
                upsampling=mode,
            )
            assert_same(maps, by_pixel_value(twins, expected))
