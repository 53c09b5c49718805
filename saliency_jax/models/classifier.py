"""A classifier: a network, its variables and the normalisation of its input."""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.errors
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from saliency_jax.closures import has_arrays, with_arrays
from saliency_jax.errors import InputError
from saliency_jax.masking import check_images, check_range, to_float
from saliency_jax.types import PyTree

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


OUTPUTS = ("softmax", "sigmoid")
"""What logits mean: one class of all, or each class by itself, for several labels."""


def normalise(
    images: Num[Array | np.ndarray, "... H W C"],
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Float[Array, "... H W C"]:
    """Returns `(images - mean) / std` in float32.

    Args:
      images: uint8 in [0, 255] or floating in [0, 1], channels last.
      mean: of each channel, for images in [0, 1].
      std: of each channel, for images in [0, 1].

    Raises:
      InputError: the images have another integer type, whose range is unknown.
    """
    images = to_float(jnp.asarray(images))
    shape = (1,) * (images.ndim - 1) + (len(mean),)
    mean_array = np.asarray(mean, np.float32).reshape(shape)
    std_array = np.asarray(std, np.float32).reshape(shape)
    return (images.astype(jnp.float32) - mean_array) / std_array


_EVALUATING = {
    **dict.fromkeys(("train", "training", "is_train", "is_training"), False),
    **dict.fromkeys(("deterministic", "use_running_average", "inference"), True),
}
"""What modules call the argument that tells them not to train, and its value then."""


def logits_and_taps(output: Any) -> tuple[Any, Any]:
    """A network's answer in two parts; the maps are () where it gives logits alone."""
    if isinstance(output, tuple) and len(output) == 2:
        return output
    return output, ()


FUNCTION = "logits_fn"
"""The name of a function among a classifier's parameters."""


class LogitsFunction(nn.Module):
    """Calls the function that stands in the place of its variables.

    Raises:
      InputError: it is an NNX model in training mode, in jitted code.
    """

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"], train: bool) -> Any:
        with _nnx_training_told():
            return self.get_variable("params", FUNCTION)(images)


@contextlib.contextmanager
def _nnx_training_told() -> Iterator[None]:
    try:
        yield
    except flax.errors.TraceContextError as error:
        raise InputError(
            "this NNX model changes its own state when it is called, as running "
            "statistics and dropout do in training: call model.eval() first"
        ) from error


@flax.struct.dataclass
class Classifier:
    """A classifier that is a pytree: pass it to jitted code as an argument.

    New weights of the same shapes then never recompile; `jax.tree.map`, `jax.grad`
    and sharding see the variables, the rest is static.

    Made of a Flax linen module and its variables, or of a function:

        Classifier(variables, module, mean=(0.5,) * 3, std=(0.5,) * 3)
        Classifier.from_function(logits_fn, labels=("cat", "dog"))

    Attributes:
      variables: `{"params": ..., "batch_stats": ...}` of the module.
      module: called as `module(images_normalised, train)`, or with what it has in the
        place of `train` (`deterministic`, `use_running_average`, nothing); returns
        logits `[B, K]`, or these and maps, as the networks of `saliency_jax.models` do.
      mean: of each channel, or one number for all; for images in [0, 1].
      std: likewise.
      labels: the names of the K classes, in order; empty if they have none.
      output: what the logits mean, one of `OUTPUTS`.

    Raises:
      InputError: for an unknown output.
    """

    variables: PyTree
    module: nn.Module = flax.struct.field(pytree_node=False)
    mean: float | Sequence[float] = flax.struct.field(
        pytree_node=False, default=IMAGENET_MEAN
    )
    std: float | Sequence[float] = flax.struct.field(
        pytree_node=False, default=IMAGENET_STD
    )
    labels: Sequence[str] = flax.struct.field(pytree_node=False, default=())
    output: str = flax.struct.field(pytree_node=False, default="softmax")

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise InputError(
                f"unknown output {self.output!r} of a classifier: expected one of "
                f"{OUTPUTS}"
            )
        # `jax.jit` hashes what is static, and people write lists, arrays and numbers.
        for name in ("mean", "std"):
            numbers = np.ravel(getattr(self, name)).astype(float).tolist()
            object.__setattr__(self, name, tuple(numbers))
        object.__setattr__(self, "labels", tuple(self.labels))

    @classmethod
    def from_function(
        cls,
        logits_fn: Callable[[Float[Array, "B H W C"]], Float[Array, "B K"]],
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        labels: Sequence[str] = (),
        output: str = "softmax",
    ) -> "Classifier":
        """Makes a classifier of any function in JAX.

        Arrays that the function closes over are constants of code that is jitted with
        the classifier, but not for attribution methods (`with_weights_of_now`). Those
        of a function that is a pytree, such as `jax.tree_util.Partial(apply, weights)`
        for an `apply(weights, images)`, are the classifier's leaves, and new ones never
        recompile.

        Args:
          logits_fn: from float32 images to logits. They are in [0, 1], whatever the
            classifier is called with, unless `mean` and `std` say otherwise.
          mean: of each channel, for images in [0, 1].
          std: of each channel, for images in [0, 1].
          labels: the names of the K classes, in order.
          output: what the logits mean, one of `OUTPUTS`.

        Raises:
          InputError: it is no function, or a linen module without its variables.
        """
        if isinstance(logits_fn, nn.Module) and logits_fn.scope is None:
            raise InputError(
                f"the module {type(logits_fn).__name__} has no variables: expected "
                "Classifier(variables, module), module.bind(variables), or another "
                "function of images"
            )
        if not callable(logits_fn):
            raise InputError(
                f"a classifier of type {type(logits_fn).__name__}: expected a "
                "function of images, or a Classifier, as load_classifier gives"
            )
        if jax.tree_util.all_leaves([logits_fn]):  # a function that is no pytree
            logits_fn = jax.tree_util.Partial(logits_fn)
        variables = {"params": {FUNCTION: logits_fn}}
        return cls(variables, LogitsFunction(), mean, std, labels, output)

    def __call__(self, images: Num[Array | np.ndarray, "..."]) -> Float[Array, "B K"]:
        """Returns the logits of images, as `features` does."""
        return self.features(images)[0]

    def features(
        self, images: Num[Array | np.ndarray, "..."]
    ) -> tuple[Float[Array, "B K"], Any]:
        """Returns the logits and the module's maps, with running statistics.

        Args:
          images: `[B, H, W, C]`, uint8 or floats in [0, 1].

        Raises:
          InputError: the images are of another shape, or not finite; the module cannot
            be called so, gives no logits `[B, K]`, or not as many as there are labels.
        """
        check_images(images, at_least=0)
        # One number is for all channels.
        if len(self.mean) not in (1, images.shape[3]):
            raise InputError(
                f"images of shape {images.shape} for a classifier whose mean and std "
                f"are of {len(self.mean)} channels: give it others, or other images"
            )
        if isinstance(images, np.ndarray):  # to look at a device's would be to wait
            check_range(images)
        normalised = normalise(images, self.mean, self.std)
        by_place, by_name = _evaluation_mode(self.module)
        output = self.module.apply(self.variables, normalised, *by_place, **by_name)
        logits, taps = logits_and_taps(output)
        shape, count = getattr(logits, "shape", None), normalised.shape[0]
        if shape is None or len(shape) != 2 or shape[0] != count:
            raise InputError(
                f"the classifier gives {shape or type(logits).__name__} for images "
                f"{normalised.shape}: expected logits [{count}, classes]"
            )
        if self.labels and len(self.labels) != logits.shape[-1]:
            raise InputError(
                f"the classifier has {len(self.labels)} labels for "
                f"{logits.shape[-1]} logits: name every class, or none"
            )
        return logits, taps


def _evaluation_mode(module: nn.Module) -> tuple[tuple[bool, ...], dict[str, bool]]:
    """The arguments, positional and by name, that tell a module not to train.

    Positional where they can be: `nn.remat` and `nn.jit` know static arguments by their
    places. False, the contract's `train`, goes to an argument of another name that is a
    truth value or not declared.

    Raises:
      InputError: another argument must be given besides the images.
    """
    while isinstance(module, nn.Sequential):  # which hands them to its first layer
        module = module.layers[0]
    if not isinstance(module, nn.Module):
        return (), {}
    _, images, *others = inspect.signature(type(module).__call__).parameters.values()
    if images.kind is images.VAR_POSITIONAL:
        others = [images]
    by_place = ()
    by_name = {x.name: _EVALUATING[x.name] for x in others if x.name in _EVALUATING}
    if others and others[0].kind is not inspect.Parameter.KEYWORD_ONLY:
        first = others[0]
        is_flag = first.annotation in (bool, "bool") or isinstance(first.default, bool)
        if first.name in by_name:
            by_place = (by_name.pop(first.name),)
        elif is_flag or first.kind is first.VAR_POSITIONAL:
            by_place = (False,)
    for one in others[len(by_place) :]:
        is_needed = one.default is one.empty and one.kind is not one.VAR_KEYWORD
        if is_needed and one.name not in by_name:
            raise InputError(
                f"the module {type(module).__name__} is called with {one.name} besides "
                f"the images: expected one of {', '.join(_EVALUATING)}, or pass a "
                "function, as jax.tree_util.Partial(apply, variables)"
            )
    return by_place, by_name


def with_weights_of_now(
    classifier: Classifier, images: Float[Array, "B H W C"]
) -> Classifier:
    """The same, with the arrays that a plain function closes over as leaves.

    Code that was jitted before then sees weights that came in the place of others. A
    classifier whose weights are leaves already is returned as it is.

    Args:
      classifier: any.
      images: only their shape is read.

    Raises:
      InputError: the function is of an NNX model in training mode.
    """
    if not isinstance(classifier.module, LogitsFunction):
        return classifier
    function = classifier.variables["params"][FUNCTION]
    is_partial = isinstance(function, jax.tree_util.Partial)
    if not is_partial or function.args or function.keywords or has_arrays(function):
        return classifier
    shown = jax.ShapeDtypeStruct(images.shape, jnp.float32)
    with _nnx_training_told():
        function = with_arrays(function.func, shown)
    return classifier.replace(variables={"params": {FUNCTION: function}})


@jax.jit
def logits_of(
    classifier: Classifier, images: Float[Array, "B H W C"]
) -> Float[Array, "B K"]:
    """Returns `classifier(images)`, for those who ask more than once.

    JAX keeps what it has traced for images of a shape, also where only the shape of the
    logits is asked for.
    """
    return classifier(images)


def mean_colour(classifier: Classifier) -> tuple[float, ...]:
    """The colour in [0, 1] that the classifier's normalisation sends to zero.

    Grey for a function, whose images have no normalisation that is known.
    """
    if isinstance(classifier.module, LogitsFunction):
        return len(classifier.mean) * (0.5,)
    return tuple(classifier.mean)
