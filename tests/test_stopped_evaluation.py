"""A signal during an evaluation: it is given up, and made up for later."""

import os
import signal

import pytest

import train
from saliency_jax.training.checkpoints import saved_steps
from tests.runs import assert_same_bits, casm_config, figures_of


@pytest.mark.parametrize("number", [1, 2])
def test_an_evaluation_that_is_given_up_is_made_up_for(
    number, casm_run, classifier_run, shapes_dir, tmp_path, monkeypatch, capsys
):
    batches, evaluated = train.pipeline.eval_batches, []

    def terminated(source, **options):
        held_out = "shared" in options
        if held_out:
            evaluated.append(0)
        for batch in batches(source, **options):
            if held_out:
                evaluated[-1] += 1
                if len(evaluated) == number:
                    os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    step = 3 * number
    with monkeypatch.context() as patch:
        patch.setattr(train.pipeline, "eval_batches", terminated)
        config = casm_config(shapes_dir, classifier_run)
        assert train.train(config, tmp_path) is signal.SIGTERM
    *before, given_up = evaluated
    assert given_up == 1 and all(whole > 1 for whole in before)
    assert saved_steps(tmp_path, "last")[-1] == step
    assert f"step {step} held out" not in capsys.readouterr().out
    assert len(figures_of(tmp_path)) < len(figures_of(casm_run))

    assert train.train(casm_config(shapes_dir, classifier_run), tmp_path) is None
    assert f"step {step} held out" in capsys.readouterr().out
    assert_same_bits(tmp_path, casm_run)
    assert figures_of(tmp_path) == figures_of(casm_run)
    assert saved_steps(tmp_path, "best") == saved_steps(casm_run, "best")
    # and again, as after a kill before the next checkpoint
    assert train.train(casm_config(shapes_dir, classifier_run), tmp_path) is None
    assert figures_of(tmp_path) == figures_of(casm_run)
