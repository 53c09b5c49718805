"""Methods by the text that a command line gives: `rise:masks=1000:cells=8`."""

import ast
import functools
from collections.abc import Callable
from typing import Any

from saliency_jax import attribution
from saliency_jax.attribution.registry import describe
from saliency_jax.errors import InputError


def method_of(text: str) -> Callable[..., Any]:
    """Returns the method that a text names, with the options that it gives.

    Args:
      text: `name` or `name:option=value:option=value`, values as in Python; a word
        without quotes is a text.

    Raises:
      InputError: there is no such method, option or choice.
    """
    name, *given = text.split(":")
    method = attribution.get(name)
    known = describe(name, method).options
    options = {}
    for assignment in given:
        option, equals, value = assignment.partition("=")
        if not equals or option not in known:
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
    return functools.partial(method, **options)
