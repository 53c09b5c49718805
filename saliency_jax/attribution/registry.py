"""The names of all methods, and what their signatures say of them."""

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

# A new method is a function of its name in a file here, and its name in a line below.
FILES = {
    "gradients.plain": ("gradient", "input_x_gradient"),
    "gradients.ten_crop": ("ten_crop_gradient",),
    "gradients.smoothing": ("smooth_grad", "smooth_grad_squared", "var_grad"),
    "gradients.path_integrals": ("integrated_gradients",),
    "gradients.blur_path": ("blur_integrated_gradients",),
    "gradients.random_baselines": ("expected_gradients",),
    "backward_rules.guided": ("guided_backprop", "deconvnet"),
    "backward_rules.excitation": (
        "excitation_backprop",
        "contrastive_excitation_backprop",
    ),
    "backward_rules.relevance": ("lrp",),
    "class_activation.linear_head": ("cam",),
    "class_activation.gradient_weighted": (
        "grad_cam",
        "grad_cam_plus_plus",
        "xgrad_cam",
        "hires_cam",
        "layer_cam",
    ),
    "class_activation.eigen": ("eigen_cam",),
    "class_activation.scored_channels": ("score_cam",),
    "class_activation.guided_product": ("guided_grad_cam",),
    "perturbation.sliding_patch": ("occlusion",),
    "perturbation.random_grids": ("rise",),
    "perturbation.linear_surrogate": ("lime",),
    "perturbation.shapley": ("kernel_shap",),
    "optimised_masks.meaningful": ("meaningful_perturbation",),
    "optimised_masks.fixed_area": ("extremal_perturbation",),
    "optimised_masks.mask_chain": ("mask_estimation",),
    "optimised_masks.iterative_mask": ("iterative_masks",),
    "trained": ("trained_masker",),
}
"""Names by file; the folder is the family."""

FILE_OF = {name: file for file, names in FILES.items() for name in names}

_OF_ALL = ("logits_fn", "images", "targets", "key", "batch_size")


class Option(NamedTuple):
    """An option of a method.

    Attributes:
      default: its value where it is not given; `inspect.Parameter.empty` if it must be.
      choices: its possible values; empty where there are more than a few.
      types: of its values, if these are numbers, texts, truths or None; else empty.
    """

    default: Any
    choices: tuple[Any, ...]
    types: tuple[type, ...]


class Method(NamedTuple):
    """What is known of a method.

    Attributes:
      name: for `attribution.get`.
      family: the folder it is in, such as "class activation".
      summary: one line.
      options: besides those that all methods have.
      stochastic: whether the maps depend on `key`.
    """

    name: str
    family: str
    summary: str
    options: dict[str, Option]
    stochastic: bool


def describe(name: str, function: Callable[..., Any]) -> Method:
    """Reads what a method's signature and docstring say."""
    text = inspect.getdoc(function)
    hints = typing.get_type_hints(function)
    options = {
        parameter.name: Option(
            parameter.default,
            _choices(hints[parameter.name]),
            _types(hints[parameter.name]),
        )
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in _OF_ALL
    }
    return Method(
        name=name,
        family=FILE_OF[name].partition(".")[0].replace("_", " "),
        summary=text.splitlines()[0],
        options=options,
        stochastic="key: not used" not in text,
    )


def _parts(hint: Any) -> tuple[Any, ...]:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _types(hint: Any) -> tuple[type, ...]:
    """The plain types that a hint is made of, if it is made of nothing else."""
    parts = _parts(hint)
    return parts if {*parts} <= {int, float, bool, str, type(None)} else ()


def _choices(hint: Any) -> tuple[Any, ...]:
    """The values that a `Literal`, or a union of one with None, stands for."""
    parts = _parts(hint)
    literals = [part for part in parts if typing.get_origin(part) is typing.Literal]
    if not literals:
        return ()
    values = [value for part in literals for value in typing.get_args(part)]
    return (*values, None) if type(None) in parts else tuple(values)
