"""A network of the user's own, named by where the function that makes it is.

Mistakes in the name, and in what a backbone has to be, are errors of one line. What the
user's code raises itself passes through with its traceback.
"""

import functools
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from saliency_jax.errors import InputError
from saliency_jax.models.backbone import Backbone
from saliency_jax.models.classifier import logits_and_taps
from saliency_jax.models.weight_names import WeightNames

FACTORY = re.compile(r"(?P<module>\w+(?:\.\w+)*):(?P<function>\w+)")
COLLECTIONS = {"params", "batch_stats"}


class OwnNetwork(nn.Module):
    """A user's module as a backbone, which it is checked to be wherever it is traced.

    Its variables are those of the user's module, by the same names.

    Attributes:
      users_module: called as `users_module(images_normalised, train)`; returns float32
        logits `[B, K]`, alone or with a tuple of maps `[B, h, w, C]`.
      factory: what made it, for messages.
      num_classes: K.
      dtype: of the computation, as far as the module takes it.
    """

    users_module: nn.Module
    factory: str
    num_classes: int
    dtype: Any = jnp.float32

    @property
    def weight_names(self) -> WeightNames | None:
        """The user's, for `weights.load_weights`."""
        return getattr(self.users_module, "weight_names", None)

    def setup(self) -> None:
        nn.share_scope(self, self.users_module)

    def __call__(
        self, images_normalised: Float[Array, "B H W 3"], train: bool
    ) -> tuple[Float[Array, "B K"], tuple[Float[Array, "B h w C"], ...]]:
        """Returns the logits and the maps, () where the module gives none.

        Raises:
          InputError: the module is not what a backbone has to be.
        """
        try:
            output = self.users_module(images_normalised, train)
        except flax.errors.InvalidRngError as error:
            raise InputError(
                f"the network of {self.factory} draws random numbers ({error}), and a "
                "step gives it no key: leave dropout and the like out"
            ) from error
        unknown = self.variables.keys() - COLLECTIONS
        if self.is_initializing() and unknown:
            raise InputError(
                f"the network of {self.factory} has variables in {sorted(unknown)}: "
                f"only {sorted(COLLECTIONS)} are trained and saved"
            )
        logits, taps = logits_and_taps(output)
        batch_size = images_normalised.shape[0]
        expected = f"float32{[batch_size, self.num_classes]}"
        if _described(logits) != expected:
            raise InputError(
                f"the network of {self.factory} gives {_described(logits)} for logits, "
                f"expected {expected}; it returns logits, or a tuple of logits and maps"
            )
        taps = tuple(taps) if isinstance(taps, tuple | list) else (taps,)
        for index, tap in enumerate(taps):
            is_map = isinstance(tap, jax.Array) and tap.ndim == 4
            if not is_map or tap.shape[0] != batch_size:
                raise InputError(
                    f"the network of {self.factory} gives {_described(tap)} for map "
                    f"{index}, expected [{batch_size}, h, w, C]"
                )
        return logits, taps


def _described(value: Any) -> str:
    if isinstance(value, jax.Array):
        return f"{value.dtype}{list(value.shape)}"
    return f"a {type(value).__name__}"


def own_backbone(factory: str) -> Backbone:
    """Returns what `create.py` has to know of the network of a factory."""
    return Backbone(functools.partial(create_network, factory), options={})


def create_network(factory: str, *, num_classes: int, dtype: Any) -> OwnNetwork:
    """Calls the user's function for a network.

    Args:
      factory: `package.module:function`.
      num_classes: K, the function's keyword argument.
      dtype: likewise; float32, where a function does not take it.

    Raises:
      InputError: there is no such function, or what it returns cannot be a backbone.
    """
    function = find_function(factory)
    arguments = {"num_classes": num_classes, "dtype": dtype}
    if dtype == jnp.float32 and not _takes(function, **arguments):
        del arguments["dtype"]
    if not _takes(function, **arguments):
        shown = arguments | {"dtype": jnp.dtype(dtype).name}
        call = ", ".join(f"{name}={shown[name]}" for name in arguments)
        raise InputError(f"{factory} cannot be called with ({call}): let it take these")
    network = function(**arguments)
    kind = type(network).__name__
    if not isinstance(network, nn.Module):
        raise InputError(f"{factory} returns a {kind}: expected a flax.linen.Module")
    if not _takes(network, None, False):
        raise InputError(
            f"{factory} returns a {kind} that cannot be called with (images, train): "
            "let its __call__ take these"
        )
    try:
        hash(network)
    except TypeError as error:
        raise InputError(
            f"{factory} returns a {kind} that cannot be hashed, as jax.jit has to: "
            "give it tuples in the place of lists"
        ) from error
    return OwnNetwork(network, factory, num_classes, dtype)


def find_function(
    factory: str, field: str = "config.model.factory"
) -> Callable[..., Any]:
    """Imports the function that `package.module:function` names.

    Args:
      factory: the name.
      field: where it stands, for messages.

    The module is looked for in the current directory and on the Python path. A run that
    came from elsewhere files such a name too: what lies in the folder of a run is not
    imported, and nothing of Python's own library is called.

    Raises:
      InputError: the name is malformed, there is no such module or function, or it is
        none of the user's.
    """
    match = FACTORY.fullmatch(factory)
    if match is None:
        raise InputError(
            f"{field} = {factory!r}: expected package.module:function, "
            "such as my_model:create for the function create of my_model.py"
        )
    name = match["module"]
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    _check_users_own(factory, name.partition(".")[0], field)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there, and misses another
        raise InputError(
            f"{field} = {factory} cannot be imported: there is no module "
            f"{error.name!r} in {here} or on the Python path; run from the folder that "
            "holds it, or add that to PYTHONPATH"
        ) from error
    function = getattr(module, match["function"], None)
    if not callable(function):
        where = getattr(module, "__file__", None) or name
        raise InputError(
            f"{field} = {factory} is not there: {where} has no function "
            f"{match['function']!r}"
        )
    return function


def _check_users_own(factory: str, package: str, field: str) -> None:
    """Refuses, before it is imported, what a user would hardly have named.

    Raises:
      InputError: the package is Python's own, or lies in the folder of a run.
    """
    if package in sys.stdlib_module_names:
        raise InputError(
            f"{field} = {factory} is of Python's own library: name a function of yours"
        )
    spec = importlib.util.find_spec(package)
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    for place in places:
        for folder in Path(place or "").resolve().parents:
            if (folder / "config.json").exists() and (folder / "checkpoints").is_dir():
                raise InputError(
                    f"{field} = {factory} lies in the folder of a run, {folder}: what "
                    "a run brings along is not imported; move the module out of it if "
                    "it is yours"
                )


def _takes(function: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """Whether a call with these arguments fits the signature."""
    try:
        inspect.signature(function).bind(*arguments, **named)
    except TypeError:
        return False
    return True
