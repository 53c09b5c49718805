"""Runs that stop early, within this process.

Apart from `tests.runs`, which programs import beside `evaluate.py`: `train.py` and it
define some flags of the same name.
"""

import pytest

import train


def interrupt(config, workdir, monkeypatch):
    """Stops a run by an exception after its fourth step."""
    report = train.report_progress

    def interrupted(bar, step, *others):
        report(bar, step, *others)
        if step == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "report_progress", interrupted)
        train.train(config, workdir)
