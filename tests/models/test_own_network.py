"""A user's own network: found by its name, and held to what a backbone has to be."""

import functools
import sys

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from saliency_jax.errors import InputError
from saliency_jax.models.classifier import Classifier
from saliency_jax.models.create import create_backbone, create_masker, init_networks
from saliency_jax.models.own_network import find_function
from saliency_jax.models.weight_names import torch_shape
from saliency_jax.models.weights import load_weights
from tests import own_networks
from tests.models import reproducible
from tests.training import tiny

IMAGES = jnp.zeros((2, 16, 16, 3))
MASKER = {
    "taps": (0, 1),
    "features": 4,
    "final_upsampling": "nearest",
    "encoder": "shared",
}


def own(function, **options):
    return create_backbone(f"tests.own_networks:{function}", tiny.CLASSES, **options)


def float32(function):
    return own(function, dtype=jnp.float32)


@pytest.mark.parametrize("function", ["plain", "batch_norm", "group_norm"])
def test_it_computes_what_the_users_module_computes(function):
    users = getattr(own_networks, function)(tiny.CLASSES)
    module = float32(function)
    shapes = [
        jax.eval_shape(lambda net=net: net.init(jax.random.key(0), IMAGES, False))
        for net in (module, users)
    ]
    assert shapes[0] == shapes[1]
    variables = reproducible.variables(users, IMAGES)
    images = jax.random.uniform(jax.random.key(1), IMAGES.shape)
    answers = [
        jax.jit(net.apply, static_argnums=2)(variables, images, False)
        for net in (module, users)
    ]
    jax.tree.map(np.testing.assert_array_equal, *answers)


def test_logits_alone_are_enough_for_a_classifier_but_not_for_a_masker():
    classifier = float32("logits_alone")
    answer, _ = jax.eval_shape(
        lambda key: classifier.init_with_output(key, IMAGES, False), jax.random.key(0)
    )
    logits, maps = answer
    assert logits.shape == (2, tiny.CLASSES) and maps == ()
    for encoder in ("shared", "own"):
        masker = create_masker(MASKER | {"encoder": encoder}, classifier)
        with pytest.raises(InputError, match=r"no maps.*return \(logits, maps\)"):
            init_networks(classifier, masker, jax.random.key(0), 16)


def test_one_map_needs_no_tuple():
    module = float32("one_map")
    answer = jax.eval_shape(
        lambda key: module.init_with_output(key, IMAGES, False)[0], jax.random.key(0)
    )
    assert [tap.shape for tap in answer[1]] == [(2, 4, 4, 4)]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_module", "returns a function: expected a flax.linen.Module"),
        ("no_arguments", r"cannot be called with \(num_classes=5\)"),
        ("without_train", r"returns a Dense that cannot be called with \(images, tra"),
        ("with_a_list", "returns a Pooled that cannot be hashed.*tuples"),
    ],
)
def test_what_is_wrong_with_the_function(function, message):
    with pytest.raises(InputError, match=f"tests.own_networks:{function} {message}"):
        float32(function)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("too_few_logits", r"gives float32\[2, 4\] for logits, expected float32\[2, 5"),
        ("half_logits", r"gives bfloat16\[2, 5\] for logits, expected float32\[2, 5\]"),
        ("three_answers", r"gives a tuple for logits.*a tuple of logits and maps"),
        ("a_dictionary", "gives a dict for logits"),
        ("flat_maps", r"gives float32\[2, 4\] for map 0, expected \[2, h, w, C\]"),
        ("no_maps", "gives a NoneType for map 0"),
        ("other_variables", r"has variables in \['counters'\]: only \['batch_stats'"),
    ],
)
def test_what_is_wrong_with_the_network(function, message):
    module = float32(function)
    with pytest.raises(InputError, match=f"of tests.own_networks:{function} {message}"):
        jax.eval_shape(lambda: module.init(jax.random.key(0), IMAGES, False))


def test_a_step_has_no_key_for_dropout():
    module = float32("dropout")
    variables = module.init(jax.random.key(0), IMAGES, False)
    module.apply(variables, IMAGES, False)
    with pytest.raises(InputError, match=r"own_networks:dropout draws random numbers"):
        module.apply(variables, IMAGES, True)


def test_what_the_users_code_raises_is_theirs():
    with pytest.raises(ZeroDivisionError, match="of 5 classes"):
        float32("fails")
    module = float32("fails_when_called")
    with pytest.raises(ZeroDivisionError):
        module.init(jax.random.key(0), IMAGES, False)


def test_another_dtype_is_for_functions_that_take_it():
    module = own("any_dtype", dtype=jnp.bfloat16)
    assert module.dtype == module.users_module.dtype == jnp.bfloat16
    assert create_masker(MASKER, module).dtype == jnp.bfloat16
    assert own("any_dtype", dtype=jnp.float32).users_module.dtype == jnp.float32
    with pytest.raises(InputError, match=r"\(num_classes=5, dtype=bfloat16\): let it"):
        own("plain", dtype=jnp.bfloat16)


def test_weights_files_are_imported_by_the_users_names():
    module = float32("plain")
    shapes = jax.eval_shape(
        functools.partial(module.init, train=False), jax.random.key(0), IMAGES
    )
    arrays = reproducible.state_dict(
        {
            module.weight_names.name(path): torch_shape(leaf.shape)
            for path, leaf in flax.traverse_util.flatten_dict(shapes).items()
        }
    )
    variables = load_weights(arrays, module)
    np.testing.assert_array_equal(
        variables["params"]["Dense_0"]["kernel"], arrays["Dense_0.weight"].T
    )
    with pytest.raises(InputError, match="it has no `weight_names`"):
        load_weights(arrays, float32("logits_alone"))


def test_equal_networks_do_not_recompile():
    traces = []

    @jax.jit
    def logits_of(classifier, images):
        traces.append(1)
        return classifier(images)

    variables = reproducible.variables(float32("plain"), IMAGES)
    for weights in (variables, jax.tree.map(lambda leaf: 2 * leaf, variables)):
        logits_of(Classifier(weights, float32("plain")), IMAGES)
    assert len(traces) == 1


@pytest.mark.parametrize(
    "factory", ["my_model", "my_model.create", ":create", "my_model:", "a/b:c", "a:b:c"]
)
def test_malformed_names(factory):
    with pytest.raises(InputError, match="expected package.module:function, such as"):
        find_function(factory)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_module:create", "no module 'no_such_module' in .*PYTHONPATH"),
        ("no_such_package.models:create", "no module 'no_such_package' in"),
        ("tests.no_such_module:create", "no module 'tests.no_such_module' in"),
        ("tests.own_networks.py:plain", "no module 'tests.own_networks.py' in"),
        ("tests.own_networks:create", "own_networks.py has no function 'create'"),
        ("tests.own_networks:NOT_A_FUNCTION", "has no function 'NOT_A_FUNCTION'"),
    ],
)
def test_what_cannot_be_found(factory, message):
    with pytest.raises(InputError, match=message) as raised:
        find_function(factory)
    assert factory in str(raised.value) and "\n" not in str(raised.value)


def test_the_current_directory_is_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "found_here.py").write_text("def create():\n    return 'found'\n")
    assert find_function("found_here:create")() == "found"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_thing", ModuleNotFoundError),
        ("from os import no_such_thing", ImportError),
        ("1 / 0", ZeroDivisionError),
        ("def create(:", SyntaxError),
    ],
)
def test_a_module_that_fails_itself_keeps_its_traceback(
    source, error, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "fails_itself.py").write_text(source)
    with pytest.raises(error):
        find_function("fails_itself:create")


@pytest.mark.parametrize("function", ["os:system", "subprocess:run", "os.path:join"])
def test_a_filed_name_calls_nothing_of_pythons_own(function):
    with pytest.raises(InputError, match=f"{function} is of Python's own library: "):
        find_function(function)


def test_what_a_run_brings_along_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "payload.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (tmp_path / "config.json").touch()
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="payload:create lies in the folder of a run"):
        find_function("payload:create")
    assert not (tmp_path / "ran").exists()
