"""A classifier's forward pass as one flat list of equations.

JAX traces any classifier (Flax linen, NNX, Equinox, a plain function) to a jaxpr. Here
its nested calls are inlined and what the logits do not need is dropped; then the
program can be cut at any of its variables, evaluated from there, and evaluated with
other backward rules, all without a change to the classifier.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jax.extend.source_info_util import SourceInfo
from jaxtyping import Array, Float

from saliency_jax.models.classifier import Classifier

# Calls that mean nothing but their body. `custom_jvp_call` is not among them: its own
# derivative would be lost (of `jax.nn.relu` the zero at zero).
_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint")

PRODUCTS = ("conv_general_dilated", "dot_general")
"""What layers with weights are made of."""

Atom = Var | Literal


class Rewrite(NamedTuple):
    """Another way to compute one variable.

    Attributes:
      inputs: variables and literals that it is computed from; the equations between
        them and the variable are skipped where nothing else needs them.
      function: from the values of `inputs` to the value of the variable.
    """

    inputs: tuple[Atom, ...]
    function: Callable[..., Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A traced classifier.

    Attributes:
      images: the variable of the images, `[B, H, W, C]` in [0, 1].
      equations: in order, without nested calls and without what nobody needs.
      constants: values of the variables that no equation computes.
      logits: the variable of the logits, `[B, K]`.
      taps: the variables of the maps that the classifier gives besides.
      named: variables by the name of the layer that gives them: those asked for in
        `trace`, and those that the model's code names with
        `jax.ad_checkpoint.checkpoint_name`. Of a layer that is called more than once,
        the last.
      paths: of all linen modules that give an array.
      active: the variables that depend on the images.
    """

    images: Var
    equations: tuple[JaxprEqn, ...]
    constants: Mapping[Var, Any]
    logits: Atom
    taps: tuple[Atom, ...]
    named: Mapping[str, Var]
    paths: tuple[str, ...]
    active: frozenset[Var]

    def is_active(self, atom: Atom) -> bool:
        """Whether a variable depends on the images."""
        return isinstance(atom, Var) and atom in self.active

    def is_computed_from(self, atom: Atom, source: Var) -> bool:
        """Whether a variable depends on another one, or is that."""
        return isinstance(atom, Var) and atom in reached(self.equations, source)

    def needed_for(self, wanted: Atom) -> list[JaxprEqn]:
        """The equations between the images and a variable, in order."""
        needed, equations = {wanted}, []
        for equation in reversed(self.equations):
            if not needed.isdisjoint(equation.outvars):
                equations.append(equation)
                needed |= {atom for atom in equation.invars if self.is_active(atom)}
        return [x for x in reversed(equations) if self.is_active(x.outvars[0])]

    def between(self, layer: Var, wanted: Atom) -> list[JaxprEqn]:
        """The equations on the ways from one variable to another, in order."""
        behind, equations = {layer}, []
        for equation in self.needed_for(wanted):
            variables = [x for x in equation.invars if isinstance(x, Var)]
            if equation.outvars[0] is not layer and not behind.isdisjoint(variables):
                behind |= set(equation.outvars)
                equations.append(equation)
        return equations

    def evaluate(
        self,
        images: Float[Array, "B H W C"],
        wanted: Sequence[Atom],
        given: Mapping[Var, Array] | None = None,
        rewrites: Mapping[Var, Rewrite] | None = None,
    ) -> list[Array]:
        """Returns the values of variables.

        Args:
          images: as they were traced, of the same shape.
          wanted: variables.
          given: values of variables, which are then not computed: the program from a
            layer on. A variable that is wanted and given is as given.
          rewrites: variables that are computed another way.
        """
        rewrites = {} if rewrites is None else rewrites
        values = dict(self.constants) | {self.images: images} | dict(given or {})
        needed = {atom for atom in wanted if isinstance(atom, Var)} - values.keys()
        steps = []
        for equation in reversed(self.equations):
            if needed.isdisjoint(equation.outvars):
                continue
            rewrite = rewrites.get(equation.outvars[0])
            inputs = equation.invars if rewrite is None else rewrite.inputs
            needed |= {x for x in inputs if isinstance(x, Var)} - values.keys()
            steps.append((equation, rewrite, inputs))

        def read(atom: Atom) -> Any:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for equation, rewrite, inputs in reversed(steps):
            arguments = [read(atom) for atom in inputs]
            if rewrite is None:
                results = bind(equation, arguments)
            else:
                results = [rewrite.function(*arguments)]
            for variable, result in zip(equation.outvars, results, strict=True):
                values.setdefault(variable, result)
        return [read(atom) for atom in wanted]


def trace(
    classifier: Classifier,
    images: Float[Array, "B H W C"],
    layers: Sequence[str] = (),
) -> Program:
    """Traces a classifier on images of a shape.

    Args:
      classifier: its variables may be tracers of an outer `jax.jit`: they stay so.
      images: only shape and type are read.
      layers: paths of linen modules, such as "layer4_2/conv2", whose outputs are to be
        among `Program.named`.
    """
    paths: dict[str, None] = {}

    def name_outputs(
        call: Callable[..., Any],
        arguments: tuple,
        keywords: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        output = call(*arguments, **keywords)
        path = "/".join(context.module.path)
        if not path or context.method_name != "__call__":
            return output
        if not isinstance(output, jax.Array):
            return output
        paths[path] = None
        return checkpoint_name(output, path) if path in layers else output

    def forward(images: Float[Array, "B H W C"]) -> tuple[Array, list[Array]]:
        with nn.intercept_methods(name_outputs):
            logits, taps = classifier.features(images)
        return logits, list(taps) if isinstance(taps, Sequence) else []

    traced = jax.make_jaxpr(forward)(images)
    return _program(flattened(traced), tuple(paths))


def flattened(traced: ClosedJaxpr) -> ClosedJaxpr:
    """The same with the bodies of its calls in their places."""
    inputs = [variable.aval for variable in traced.jaxpr.invars]
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
    return jax.make_jaxpr(lambda *x: _inlined(traced.jaxpr, traced.consts, *x))(*shapes)


def unrolled(body: Jaxpr | ClosedJaxpr) -> tuple[list[JaxprEqn], list[Atom]]:
    """The equations of a body, and its results, with those of its calls in their place.

    To be read, not evaluated: unlike `flattened` it asks for nothing that a body has
    in its place alone, such as the axes of `shard_map` or references to memory.
    """
    body = body.jaxpr if isinstance(body, ClosedJaxpr) else body
    return _unrolled(body, body.invars)


def _unrolled(
    jaxpr: Jaxpr, inputs: Sequence[Atom]
) -> tuple[list[JaxprEqn], list[Atom]]:
    names: dict[Var, Atom] = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Atom) -> Atom:
        return names.get(atom, atom) if isinstance(atom, Var) else atom

    equations = []
    for equation in jaxpr.eqns:
        arguments = [read(atom) for atom in equation.invars]
        if equation.primitive.name in _CALLS:
            inside, results = _unrolled(_body_of_call(equation).jaxpr, arguments)
            equations += inside
        else:
            # Copies, because a body that is called twice has its variables once.
            results = [copy.copy(variable) for variable in equation.outvars]
            equations.append(equation.replace(invars=arguments, outvars=results))
        names |= dict(zip(equation.outvars, results, strict=True))
    return equations, [read(atom) for atom in jaxpr.outvars]


def reached(equations: Sequence[JaxprEqn], source: Var) -> set[Var]:
    """A variable and all that are computed from it, by equations in order."""
    found = {source}
    for equation in equations:
        if any(isinstance(atom, Var) and atom in found for atom in equation.invars):
            found |= set(equation.outvars)
    return found


def _inlined(
    jaxpr: Jaxpr,
    constants: Sequence[Any],
    *inputs: Any,
    caller: SourceInfo | None = None,
) -> list[Any]:
    """Evaluates a jaxpr, its calls as if their bodies stood in their places.

    Of JAX's own jitted functions the bodies stand in no line of the user's: theirs is
    that of the call.
    """
    values = dict(zip(jaxpr.constvars, constants, strict=True))
    values |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Atom) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        source = equation.source_info
        if caller and not source_info_util.summarize(source):
            source = source.replace(traceback=caller.traceback)
            equation = equation.replace(source_info=source)
        arguments = [read(atom) for atom in equation.invars]
        if equation.primitive.name in _CALLS:
            body = _body_of_call(equation)
            results = _inlined(body.jaxpr, body.consts, *arguments, caller=source)
        else:
            results = bind(equation, arguments)
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _body_of_call(equation: JaxprEqn) -> ClosedJaxpr:
    body = equation.params.get("jaxpr") or equation.params["call_jaxpr"]
    return body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())


def bind(equation: JaxprEqn, arguments: Sequence[Any]) -> list[Any]:
    """Evaluates one equation."""
    parameters = equation.primitive.get_bind_params(equation.params)
    functions = ()
    if isinstance(parameters, tuple):  # before jax 0.10
        functions, parameters = parameters
    # So that an error, or a traced copy, still tells where in the user's code it is.
    source = equation.source_info
    user = source_info_util.user_context(source.traceback, name_stack=source.name_stack)
    with user, equation.ctx.manager:
        results = equation.primitive.bind(*functions, *arguments, **parameters)
    return list(results) if equation.primitive.multiple_results else [results]


def place(equation: JaxprEqn) -> str:
    """A primitive and where it stands in the user's code, for messages."""
    where = source_info_util.summarize(equation.source_info)
    return equation.primitive.name + (f" ({where})" if where else "")


def _program(flat: ClosedJaxpr, paths: tuple[str, ...]) -> Program:
    """What is known of a flat jaxpr from images to logits and taps."""
    jaxpr = flat.jaxpr
    needed = {atom for atom in jaxpr.outvars if isinstance(atom, Var)}
    equations = []
    for equation in reversed(jaxpr.eqns):
        if needed.isdisjoint(equation.outvars):
            continue
        needed |= {atom for atom in equation.invars if isinstance(atom, Var)}
        equations.append(equation)
    equations.reverse()

    (images,) = jaxpr.invars
    named = {
        equation.params["name"]: equation.outvars[0]
        for equation in equations
        if equation.primitive.name == "name"
    }
    logits, *taps = jaxpr.outvars
    return Program(
        images=images,
        equations=tuple(equations),
        constants=dict(zip(jaxpr.constvars, flat.consts, strict=True)),
        logits=logits,
        taps=tuple(taps),
        named=named,
        paths=paths,
        active=frozenset(reached(equations, images)),
    )
