"""A layer of any classifier: what it gives, and the scores as a function of that.

A layer is named by a tap ("tap_0" to "tap_4" of the networks of this package), by the
path of a linen module ("layer4_1/conv2"), by a name that the model's code gives with
`jax.ad_checkpoint.checkpoint_name`, or it is a pair of functions `(features, head)`.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn, Var
from jaxtyping import Array, Float, Int

from saliency_jax.attribution.program import PRODUCTS, Atom, Program, Rewrite, trace
from saliency_jax.closures import as_partial
from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier

Layer = str | tuple[Callable, Callable] | None
"""What users pass: a name, or `(features, head)`: from images in [0, 1] to maps
`[B, h, w, C]`, and from those to logits `[B, K]`."""

INPUT = "input"
"""The images themselves as a layer."""

MIDDLE = "middle"
"""As a layer: the last maps that all that counts goes through (not one of several
branches), that are at least a 16th as large as the images, and that come before the
last weights. Not those just before max pooling: it uses but one value of several."""

_CHANNELS_LAST = (0, 1, 2, 3)
_FROM_CHANNELS_FIRST = (0, 2, 3, 1)
_TO_CHANNELS_FIRST = (0, 3, 1, 2)

_Found = tuple[Var, tuple[int, ...], tuple[int, ...]]
"""A layer's variable, and the order of its axes to channels last and back."""


Index = int | Int[Array | np.ndarray, "*B"]
"""A number for all images, or one for each."""


@flax.struct.dataclass
class Unit:
    """A hidden unit as the target of an explanation, in the place of a class.

    Attributes:
      channel: of the layer's maps; one, or one for each image `[B]`.
      position: row and column in the layer's maps. None: the mean over all positions.
      layer: its name; None means the activation after the last convolution.
    """

    channel: Index
    position: tuple[Index, Index] | None = None
    layer: str | None = flax.struct.field(pytree_node=False, default=None)


Targets = Int[Array, "B"] | Callable | Unit | None
"""What is explained, past the door (`asking.ask`): a class of each image, the score
that a function makes of its logits, a hidden unit, or None, the predicted class."""


@flax.struct.dataclass
class NamedLayer:
    """A layer's name as a pytree, static in jitted code."""

    name: str = flax.struct.field(pytree_node=False)


AskedLayer = NamedLayer | tuple[jax.tree_util.Partial, jax.tree_util.Partial] | None
"""A layer past the door (`as_layer`), as a pytree."""


class Cut(NamedTuple):
    """A classifier, cut at a layer.

    Attributes:
      activations: from images to the layer's maps, `[B, h, w, C]`; of the input, to the
        images.
      logits: from images and activations to logits `[B, K]`. The images count only
        where a connection skips the layer.
      scores: from images, activations and targets to the scores `[B]` that are
        explained.
    """

    activations: Callable[[Array], Array]
    logits: Callable[[Array, Array], Array]
    scores: Callable[[Array, Array, Targets], Array]


def as_layer(layer: Layer) -> AskedLayer:
    """Checks a layer that a user passes, and makes it a pytree.

    Raises:
      InputError: it is neither a name nor a pair of functions.
    """
    if layer is None:
        return None
    if isinstance(layer, str):
        return NamedLayer(layer)
    if isinstance(layer, tuple) and len(layer) == 2 and all(map(callable, layer)):
        return as_partial(layer[0]), as_partial(layer[1])
    raise InputError(
        f"layer={layer!r}: expected the name of a layer or two functions (features, "
        f"head)"
    )


def cut(
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    layer: AskedLayer,
    targets: Targets = None,
    rewriting: Callable[[Program, Var, Atom], Mapping[Var, Rewrite]] | None = None,
) -> Cut:
    """Cuts a classifier at a layer.

    Call it in jitted code: it traces the classifier.

    Args:
      classifier: any.
      images: only their shape is read.
      layer: where; None means the activation after the last convolution, `INPUT` the
        images, `MIDDLE` what it says.
      targets: what will be explained; a hidden unit has a layer too.
      rewriting: for backward rules, from the traced program, the layer's variable and
        the explained one (the logits or the unit's maps) to other ways of computing
        variables.

    Raises:
      InputError: there is no such layer, it gives no maps, or what is explained is not
        computed from it.
    """
    if isinstance(layer, tuple):
        return _cut_by_hand(layer, targets, rewriting)
    name = None if layer is None else layer.name
    asked = (name, targets.layer if isinstance(targets, Unit) else None)
    program = trace(classifier, images, [name for name in asked if name])
    variable, to_last, from_last = _find(program, name)
    wanted = program.logits
    if isinstance(targets, Unit):
        wanted, unit_to_last, _ = _find(program, targets.layer)
    rewrites = {} if rewriting is None else rewriting(program, variable, wanted)

    def activations(images: Array) -> Array:
        (maps,) = program.evaluate(images, [variable], rewrites=rewrites)
        return jnp.transpose(maps, to_last)

    def evaluate(images: Array, maps: Array, wanted: Any) -> Array:
        given = {variable: jnp.transpose(maps, from_last)}
        return program.evaluate(images, [wanted], given, rewrites)[0]

    def logits(images: Array, maps: Array) -> Array:
        return evaluate(images, maps, program.logits)

    def scores(images: Array, maps: Array, targets: Targets) -> Array:
        reaches = program.is_computed_from(wanted, variable)
        if variable != program.images and not reaches:
            raise InputError(
                f"what is explained is not computed from layer {name!r}: use a layer "
                f"between the images and that"
            )
        if not isinstance(targets, Unit):
            return target_scores(logits(images, maps), targets)
        hidden = jnp.transpose(evaluate(images, maps, wanted), unit_to_last)
        return unit_scores(hidden, targets)

    return Cut(activations, logits, scores)


def _cut_by_hand(
    layer: tuple[Callable, Callable], targets: Targets, rewriting: Callable | None
) -> Cut:
    features, head = layer
    if isinstance(targets, Unit):
        raise InputError(
            "a hidden unit as target needs a classifier that is cut by name, not "
            "by (features, head): pass a layer's name"
        )
    if rewriting is not None:
        raise InputError(
            "backward rules go through the whole classifier: name the layer with "
            "jax.ad_checkpoint.checkpoint_name(maps, name) in the model's code and "
            "pass that name, not (features, head)"
        )

    def activations(images: Array) -> Array:
        maps = features(images)
        if maps.ndim != 4:
            raise InputError(
                f"features(images) gives an array of shape {maps.shape}: expected maps "
                f"[B, h, w, C]"
            )
        return maps

    return Cut(
        activations,
        lambda images, maps: head(maps),
        lambda images, maps, targets: target_scores(head(maps), targets),
    )


def target_scores(logits: Float[Array, "B K"], targets: Targets) -> Float[Array, "B"]:
    """The number of each image that an explanation is of.

    Args:
      logits: or probabilities.
      targets: of a class, its logit; of a function, what it makes of the logits of each
        image; of None, the greatest logit.
    """
    if targets is None:
        targets = jnp.argmax(logits, axis=-1)
    if callable(targets):
        return jax.vmap(targets)(logits)
    return jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]


def unit_scores(maps: Float[Array, "B h w D"], unit: Unit) -> Float[Array, "B"]:
    """The activation of a hidden unit in each image."""
    count = len(maps)
    images = jnp.arange(count)
    channel = jnp.broadcast_to(jnp.asarray(unit.channel), (count,))
    if unit.position is None:
        return jnp.mean(maps, axis=(1, 2))[images, channel]
    row, column = (
        jnp.broadcast_to(jnp.asarray(place), (count,)) for place in unit.position
    )
    return maps[images, row, column, channel]


def _find(program: Program, layer: str | None) -> _Found:
    if layer is None:
        return _after_last_convolution(program)
    if layer == INPUT:
        return program.images, _CHANNELS_LAST, _CHANNELS_LAST
    if layer == MIDDLE:
        return _in_the_middle(program)
    if layer in program.named:
        variable = program.named[layer]
    elif layer in (taps := {f"tap_{i}": tap for i, tap in enumerate(program.taps)}):
        variable = taps[layer]
    else:
        raise InputError(
            f"the classifier has no layer {layer!r}: {_known(program, layer)}"
        )
    if variable.aval.ndim != 4:
        raise InputError(
            f"layer {layer!r} gives an array of shape {variable.aval.shape}: expected "
            f"maps [B, h, w, C]; pass (features, head) to make them"
        )
    if not program.is_active(variable):
        raise InputError(
            f"layer {layer!r} does not depend on the images: use one between the "
            f"images and what is explained"
        )
    return variable, *_axes(_is_channels_first(program, variable))


def _axes(channels_first: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The order of a layer's axes to channels last, and back."""
    if channels_first:
        return _FROM_CHANNELS_FIRST, _TO_CHANNELS_FIRST
    return _CHANNELS_LAST, _CHANNELS_LAST


def _is_channels_first(program: Program, variable: Var) -> bool:
    """Whether it has the axes of a channels-first convolution, which nobody moved."""
    channels_first = False
    for equation in program.needed_for(variable):
        if equation.primitive.name == "conv_general_dilated":
            channels_first = equation.params["dimension_numbers"].out_spec[1] == 1
        elif equation.params.get("permutation") == _FROM_CHANNELS_FIRST:
            channels_first = False
    return channels_first


def _known(program: Program, layer: str) -> str:
    names = [*program.named, *(f"tap_{i}" for i in range(len(program.taps)))]
    names += program.paths
    if not names:
        return (
            "name one in the model's code with jax.ad_checkpoint.checkpoint_name(maps, "
            "name), or pass (features, head)"
        )
    near = difflib.get_close_matches(layer, names, n=3)
    return f"use one like {', '.join(map(repr, near or names[-3:]))}"


def _after_last_convolution(program: Program) -> _Found:
    """The last maps of the size that the last convolution gives.

    So the activation that follows it, after normalisation and a residual sum, or the
    concatenation of branches.

    Raises:
      InputError: there is no convolution.
    """
    batch = program.images.aval.shape[0]
    found = None
    equations = program.needed_for(program.logits)
    for equation in equations:
        maps = _convolved(equation, batch)
        # Of a single pixel are the maps of squeeze-and-excitation, and of layers after
        # the average pooling; where all maps are, the last of them will do.
        if maps and (found is None or math.prod(maps[1]) > 1):
            found = (equation, *maps)
    if found is None:
        raise InputError(
            "no convolution in the classifier, so its last maps are unknown: pass "
            "layer, the name of one or (features, head)"
        )
    convolution, channels_first, size = found
    spatial = slice(2, 4) if channels_first else slice(1, 3)
    candidates = [
        equation.outvars[0]
        for equation in equations[equations.index(convolution) :]
        if equation.outvars[0].aval.ndim == 4
        and equation.outvars[0].aval.shape[0] == batch
        and equation.outvars[0].aval.shape[spatial] == size
    ]
    return candidates[-1], *_axes(channels_first)


def _in_the_middle(program: Program) -> _Found:
    """See `MIDDLE`; the images themselves where there are no such maps."""
    batch, height, width, _ = program.images.aval.shape
    equations = program.needed_for(program.logits)
    last_read = {x: i for i, e in enumerate(equations) for x in e.invars if _is_var(x)}
    weights = [i for i, e in enumerate(equations) if e.primitive.name in PRODUCTS]
    found = before_weights = (program.images, False)
    pending, channels_first = {program.images}, False
    for i, equation in enumerate(equations[: max(weights, default=0)]):
        output, name = equation.outvars[0], equation.primitive.name
        if name in PRODUCTS:
            before_weights = found
        if name == "reduce_window_max":
            found = before_weights
        maps = _convolved(equation, batch)
        channels_first = maps[0] if maps else channels_first
        if name == "transpose":
            order = equation.params["permutation"]
            if order not in (_TO_CHANNELS_FIRST, _FROM_CHANNELS_FIRST):
                break  # maps of no known form come after it
            channels_first = order == _TO_CHANNELS_FIRST
        pending = {x for x in pending if last_read.get(x, -1) > i}
        pending |= {x for x in equation.outvars if x in last_read}
        shape = output.aval.shape
        # Padded maps would lie beside the images.
        if pending != {output} or len(shape) != 4 or shape[0] != batch or name == "pad":
            continue
        rows, columns = shape[2:4] if channels_first else shape[1:3]
        if 16 * rows >= height and 16 * columns >= width:
            found = output, channels_first
    variable, channels_first = found
    return variable, *_axes(channels_first)


def _is_var(atom: Atom) -> bool:
    return isinstance(atom, Var)


def _convolved(equation: JaxprEqn, batch: int) -> tuple[bool, tuple[int, int]] | None:
    """Whether its channels come first, and the size, of what a convolution gives.

    None for what is no convolution. A 1x1 convolution may be a product of the pixels
    `[B h w, C]`, as in this package's networks: then it is the reshape that follows it.
    """
    shape = equation.outvars[0].aval.shape
    if len(shape) != 4 or shape[0] != batch:
        return None
    name = equation.primitive.name
    if name == "conv_general_dilated":
        channels_first = equation.params["dimension_numbers"].out_spec[1] == 1
        return channels_first, shape[2:4] if channels_first else shape[1:3]
    if name == "dot_general":
        return False, shape[1:3]
    pixels = (math.prod(shape[:3]), shape[3])
    if name == "reshape" and equation.invars[0].aval.shape == pixels:
        return False, shape[1:3]
    return None
