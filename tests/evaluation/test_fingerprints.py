"""What figures go back to is told apart, and the same is the same."""

import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np

from saliency_jax.data.sources import open_source
from saliency_jax.evaluation import fingerprints
from saliency_jax.loading import load_classifier
from saliency_jax.models.classifier import Classifier
from tests.attribution.small_network import classifier


def test_any_other_variable_is_another_classifier():
    one = classifier()
    assert fingerprints.of_classifier(one) == fingerprints.of_classifier(classifier())
    bias = one.variables["params"]["fc"]["bias"]
    changed = jax.tree.map(lambda x: x, one.variables)
    changed["params"]["fc"]["bias"] = bias.at[0].add(1e-6)
    others = [
        classifier(seed=1),
        one.replace(variables=changed),
        one.replace(std=(0.2, 0.3, 0.3)),
        one.replace(output="sigmoid"),
    ]
    found = {fingerprints.of_classifier(model) for model in (one, *others)}
    assert len(found) == 5


def test_values_count_by_their_place():
    first = {"a": jnp.zeros(2), "b": jnp.ones(2)}
    second = {"a": jnp.ones(2), "b": jnp.zeros(2)}
    assert fingerprints.of_variables(first) != fingerprints.of_variables(second)
    whole = {"a": jnp.zeros(2, jnp.int32)}
    assert fingerprints.of_variables(whole) != fingerprints.of_variables(
        {"a": jnp.zeros(2)}
    )


def test_an_edited_function_is_another_classifier(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for factor in (1, 2, 1):
        text = f"def logits(images):\n    return {factor} * images.mean((1, 2))\n"
        (tmp_path / "edited_classifier.py").write_text(textwrap.dedent(text))
        sys.modules.pop("edited_classifier", None)
        model = load_classifier("edited_classifier:logits")
        found.append(fingerprints.of_classifier(model))
    assert found[0] == found[2] != found[1]
    # One without a file, and one whose arrays are its leaves.
    assert fingerprints.of_classifier(Classifier.from_function(np.sin))
    scaled = [
        Classifier.from_function(jax.tree_util.Partial(jnp.multiply, jnp.float32(x)))
        for x in (1, 2)
    ]
    assert len({fingerprints.of_classifier(model) for model in scaled}) == 2


def test_data_go_by_their_files(shapes_dir):
    source = open_source("shapes/32x32", shapes_dir, "validation")
    again = open_source("shapes/32x32", shapes_dir, "validation")
    assert fingerprints.of_source(source) == fingerprints.of_source(again)
    other = open_source("shapes/32x32", shapes_dir, "train")
    some = source.subset([0, 1])
    found = {fingerprints.of_source(each) for each in (source, other, some)}
    assert len(found) == 3
