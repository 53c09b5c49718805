"""The opponent of `benchmarks.versus_torch` plays the same game as ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks.versus_torch import ours, theirs
from benchmarks.versus_torch.contestant import check
from benchmarks.versus_torch.problem import Problem, as_flax
from benchmarks.versus_torch.torch_steps import Form
from saliency_jax.errors import InputError

pytestmark = pytest.mark.torch

PROBLEM = Problem("resnet10", image_size=64, batch_size=8, classes=10, width=8, slots=2)
FORMS = [theirs.PLAIN, Form("tuned", tuned=True)]


@pytest.fixture(scope="module")
def labels():
    return theirs.labels_of(PROBLEM, "cpu")


@pytest.fixture(scope="module")
def played(labels):
    """Our metrics of a step against each critic, and the parameters after both."""
    step, state = ours.start_casm(PROBLEM, "float32")
    batch = {"image": jnp.asarray(PROBLEM.images()), "label": jnp.asarray(labels)}
    batch["label"] = batch["label"].astype(jnp.int32)
    jitted = jax.jit(step, static_argnums=2)
    metrics = []
    for historic in (False, True):
        state, found = jitted(state, batch, historic)
        metrics.append(jax.device_get(found))
    return metrics, {
        "classifier": jax.device_get(state.classifier.params),
        "masker": jax.device_get(state.masker.params),
    }


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_steps_against_both_critics_are_ours(form, labels, played):
    metrics, params = played
    trainer = theirs.start_casm(PROBLEM, form, "cpu")
    images = form.place_images(torch.from_numpy(PROBLEM.images()), "cpu")
    targets = torch.from_numpy(labels)
    for historic, expected in zip((False, True), metrics, strict=True):
        for name, value in trainer.step(images, targets, historic).items():
            assert float(value) == pytest.approx(float(expected[name]), abs=3e-5), name
    # otherwise neither gate would be seen
    assert 0 < metrics[0]["counted"] < metrics[0]["clean_accuracy"] < 1
    modules = {"classifier": trainer.classifier.module, "masker": trainer.masker}
    starts, shapes = PROBLEM.weights(), PROBLEM.shapes()
    for name, module in modules.items():
        arrays = {key: value.numpy() for key, value in module.state_dict().items()}
        like = {"params": shapes[name]["params"]}
        found, start = (as_flax(of, like)["params"] for of in (arrays, starts[name]))
        moved = jax.tree.map(lambda new, old: new - old, params[name], start)
        left = jax.tree.map(lambda new, want: new - want, found, params[name])
        length = lambda tree: np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(tree)))
        assert 0 < length(moved)
        # of the way that the steps have gone: whole weights would hide it
        assert length(left) < 1e-3 * length(moved), name


def test_a_pool_takes_the_classifier_when_it_is_time(labels):
    trainer = theirs.start_casm(PROBLEM, FORMS[1], "cpu")
    kept = [{k: v.clone() for k, v in entry.items()} for entry in trainer.pool]
    same = lambda a, b: all(torch.equal(a[name], b[name]) for name in b)
    for _ in range(trainer.save_every - 1):
        trainer.store()
    assert all(map(same, trainer.pool, kept))
    trainer.store()
    current = trainer.classifier.module.state_dict()
    assert [same(entry, current) for entry in trainer.pool].count(True) == 1


@pytest.mark.parametrize("wrong", [2.5, float("nan")])
def test_another_answer_is_not_timed(wrong):
    expected = {"loss": np.float32(2.3), "accuracy": np.float32(0.5)}
    assert check("torch", {"loss": np.float32(2.3)}, expected, "float32") == 0
    with pytest.raises(InputError, match="torch .* loss .* instead of 2.3"):
        check("torch", {"loss": np.float32(wrong)}, expected, "float32")
