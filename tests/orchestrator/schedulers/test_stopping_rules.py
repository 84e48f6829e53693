from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from orchestrator import schedulers
from orchestrator.schedulers import ASHA, MedianStopping


@pytest.mark.parametrize("name", schedulers.__all__)
def test_every_rule_is_made_of_named_options_and_builds_a_scheduler_of_ray(name):
    from ray.tune.schedulers import TrialScheduler

    rule = getattr(schedulers, name)
    assert all(
        parameter.kind is inspect.Parameter.KEYWORD_ONLY
        for parameter in list(inspect.signature(rule.__init__).parameters.values())[1:]
    )
    assert isinstance(rule().build(metric="val/accuracy", mode="max", num_epochs=3), TrialScheduler)


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (ASHA, {"grace_period": 0}, "grace_period: must be at least 1 epoch, found 0"),
        (ASHA, {"reduction_factor": 1}, "reduction_factor: must be above 1, found 1"),
        (ASHA, {"grace_period": 3, "max_epochs": 2}, "max_epochs: must be at least grace_period, which is 3, found 2"),
        (MedianStopping, {"grace_period": 0}, "grace_period: must be at least 1 epoch, found 0"),
        (MedianStopping, {"min_arms": 0}, "min_arms: must be at least 1, found 0"),
    ],
)
def test_options_out_of_range_are_refused(rule, options, message):
    with pytest.raises(ValueError, match=message):
        rule(**options)


def test_runs_shorter_than_the_grace_period_are_never_halved():
    assert ASHA(grace_period=5).build(metric="m", mode="max", num_epochs=2) is not None


def test_checking_a_file_does_not_import_ray():
    code = "import sys; from orchestrator.schedulers import ASHA; ASHA(); sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
