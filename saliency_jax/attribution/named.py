"""Methods by the text that a command line gives: `rise:masks=1000:cells=8`."""

import ast
import functools
from collections.abc import Callable
from typing import Any

from saliency_jax import attribution
from saliency_jax.attribution.registry import describe
from saliency_jax.errors import InputError
from saliency_jax.saliency import load_masker

_TYPES = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    type(None): "None",
}


def method_of(text: str) -> Callable[..., Any]:
    """Returns the method that a text names, with the options that it gives.

    Args:
      text: `name` or `name:option=value:option=value`, values as in Python; a word
        without quotes is a text.

    Raises:
      InputError: there is no such method, option or choice, or it is a trained masker,
        which is named as a run.
    """
    name, *given = text.split(":")
    if name == "trained_masker":
        raise InputError(
            "trained_masker: name the run as one of --maskers instead, or as --masker "
            "of saliency_jax.attribution"
        )
    method = attribution.get(name)
    known = describe(name, method).options
    options = {}
    for assignment in given:
        option, equals, value = assignment.partition("=")
        if option in known and not equals:
            raise InputError(f"{text}: write {name}:{option}=value")
        if option not in known:
            raise InputError(
                f"{text}: {name} has no option {option!r}: use one of "
                f"{', '.join(known) or 'none at all'}, as in name:option=value"
            )
        try:
            options[option] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[option] = value  # a word
        choices = known[option].choices
        if choices and options[option] not in choices:
            raise InputError(f"{text}: {option} is one of {choices}")
        types = known[option].types
        if types and not _fits(options[option], types):
            names = " or ".join(_TYPES[each] for each in types)
            raise InputError(f"{text}: {option} is {names}")
    return functools.partial(method, **options)


def masker_method(workdir: str) -> Callable[..., Any]:
    """Returns the masker of a run as a method.

    Raises:
      InputError: there is no such run, or it has no masker.
    """
    return functools.partial(
        attribution.get("trained_masker"), masker=load_masker(workdir)
    )


def _fits(value: Any, types: tuple[type, ...]) -> bool:
    """Whether a value has one of the types; a whole number is a number too."""
    if isinstance(value, bool):
        return bool in types
    return isinstance(value, types) or (isinstance(value, int) and float in types)
