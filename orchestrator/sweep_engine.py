"""Runs the planned runs of a sweep through Ray Tune."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from ray import tune
from ray.tune.error import TuneError

from orchestrator import train_engine
from orchestrator.arm_scheduler import KEY, ArmScheduler
from orchestrator.arm_searcher import ArmSearcher
from orchestrator.arms import Arms
from orchestrator.cluster import Cluster
from orchestrator.demand import Demand
from orchestrator.failure_reason import failure_reason
from orchestrator.hosts import TuneHost
from orchestrator.hosts.messages import pack_reason, pack_report, pack_result, reason_in, report_in
from orchestrator.interrupts import Interrupts
from orchestrator.mailbox import Mailbox
from orchestrator.past_run import PastRun
from orchestrator.roster import Roster
from orchestrator.run_listener import RunListener
from orchestrator.schedulers.stopping_rule import StoppingRule

if TYPE_CHECKING:
    from orchestrator.config.planned_run import PlannedRun

PAYLOAD = "payload"

DIED = "the process died or could not start: killed, out of memory, node lost, or the project is missing on it"

TRIAL_HEAD: dict[str, float] = {"CPU": 0, "memory": 256 * 2**20}
"""What a trial holds that only waits for its workers: a CPU would be taken from them, and nothing at all is refused."""


def run(
    training_function: train_engine.TrainingFunction,
    *,
    cluster: Cluster,
    demand: Demand,
    first: Sequence[PlannedRun],
    proposer: Arms,
    payload: Callable[[PlannedRun], Mapping[str, Any]],
    listeners: Sequence[RunListener],
    metric: str,
    mode: Literal["min", "max"],
    num_epochs: int,
    stopping_rule: StoppingRule | None = None,
    max_concurrent: int | None = None,
    max_failures: int = 0,
    past: Sequence[PastRun] = (),
) -> None:
    """Run the controls, then the proposer's arms, until all have ended.

    A run of one worker is a plain trial, in a process that goes on to the next trial; one of several workers is a
    trial that starts a Ray Train run. Nothing is resumed by Ray: trials that are retried, and runs of an earlier
    session, find their own last checkpoints.

    Args:
        training_function: trains one run; called in the run's process.
        cluster: the connection to Ray.
        demand: what each run needs.
        first: runs to begin with: the student alone, and sampled arms of an earlier session.
        proposer: names the arms.
        payload: makes of a run what ``training_function`` gets: plain data.
        listeners: told of all that happens, in their order.
        metric: name of the metric in the reports by which arms are judged.
        mode: whether more of it is better.
        num_epochs: epochs of the longest run.
        stopping_rule: stops arms early.
        max_concurrent: most runs at once; None: as many as the cluster, or what its autoscaler may add, can hold.
        max_failures: how often a run is tried again after its process died or raised; an error in the configuration
            (``ValueError``) or in the arithmetic (``ArithmeticError``) would only happen again and is final.
        past: what an earlier session left.

    Raises:
        ValueError: a run can never fit the cluster.
        KeyboardInterrupt: the sweep was interrupted; runs that were under way can be resumed.
    """
    groups = cluster.node_groups()
    demand.check_fits(groups)
    if demand.workers > 1:
        cluster.check_state_api()
    mailbox = Mailbox() if stopping_rule is not None or demand.workers > 1 else None
    roster = Roster()
    scheduler = ArmScheduler(
        roster,
        metric=metric,
        rule=stopping_rule and stopping_rule.build(metric=metric, mode=mode, num_epochs=num_epochs),
        ask_to_stop=mailbox.ask_to_stop if mailbox else _nobody_asks,
    )
    searcher = ArmSearcher(
        roster,
        first=first,
        proposer=proposer,
        past={run.key: run for run in past},
        metric=metric,
        replay=scheduler.replay,
        suggestion=lambda run: {KEY: run.key, PAYLOAD: json.dumps(dict(payload(run)))},
    )
    relay = _Relay(roster, listeners)
    most = demand.most_at_once(groups)
    try:
        with _quiet_tune(), Interrupts() as interrupts, _temporary_folder() as folder:
            tune.run(
                _trainable(training_function, demand, mailbox, max_failures),
                name=f"sweep-{uuid.uuid4().hex[:8]}",
                storage_path=folder,
                num_samples=-1,
                search_alg=searcher,
                scheduler=scheduler,
                callbacks=[relay],
                max_concurrent_trials=most if max_concurrent is None else min(most, max_concurrent),
                max_failures=max_failures,
                reuse_actors=demand.workers == 1,
                raise_on_failed_trial=False,
                trial_dirname_creator=_trial_name,
                verbose=0,
            )
    except TuneError:
        if relay.error is not None:
            raise relay.error from None
        raise
    finally:
        if mailbox is not None:
            mailbox.close()
    if interrupts.happened:
        raise KeyboardInterrupt


class _Relay(tune.Callback):
    """Tells the listeners, in the driver, what Tune tells its callbacks."""

    def __init__(self, roster: Roster, listeners: Sequence[RunListener]) -> None:
        self._roster = roster
        self._listeners = listeners
        self._started: set[str] = set()
        self._reasons: dict[str, str] = {}
        self.error: Exception | None = None

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = trial.config[KEY]
        self._reasons.pop(key, None)
        if key not in self._started:  # a retried run starts once
            self._started.add(key)
            self._tell(lambda listener: listener.started(self._roster.run(key)))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        key = trial.config[KEY]
        metrics, reason = report_in(result), reason_in(result)
        if metrics is not None:
            self._tell(lambda listener: listener.reported(self._roster.run(key), metrics))
        if reason is not None:
            self._reasons[key] = reason

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial.config[KEY])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        key = trial.config[KEY]
        self._roster.end(key, {"status": "failed", "reason": self._reasons.get(key, DIED)})
        self._end(key)

    def _end(self, key: str) -> None:
        self._tell(lambda listener: listener.ended(self._roster.run(key), self._roster.result(key)))

    def _tell(self, say: Callable[[RunListener], None]) -> None:
        """Keep what a listener raises: Tune passes on its text alone."""
        try:
            for listener in self._listeners:
                say(listener)
        except Exception as error:
            self.error = error
            raise


def _trainable(
    training_function: train_engine.TrainingFunction, demand: Demand, mailbox: Mailbox | None, max_failures: int
) -> Any:
    if demand.workers == 1:
        trial = functools.partial(
            _plain_trial,
            training_function=training_function,
            cpus_per_worker=demand.cpus_per_worker,
            mailbox=mailbox,
        )
        return tune.with_resources(_named(trial), demand.resources_per_worker())
    trial = functools.partial(
        _nested_trial,
        training_function=training_function,
        demand=demand,
        mailbox=mailbox,
        max_failures=max_failures,
    )
    return tune.with_resources(_named(trial), TRIAL_HEAD)


def _named(trial: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Give Tune a function whose one parameter is called ``config``, which it insists on."""

    def distillery(config: dict[str, Any]) -> dict[str, Any]:
        return trial(config)

    return distillery


def _plain_trial(
    config: dict[str, Any],
    *,
    training_function: train_engine.TrainingFunction,
    cpus_per_worker: int,
    mailbox: Mailbox | None,
) -> dict[str, Any]:
    # How long the next trial of this process waits for the last one's thread to end; 2 s would fail it too early.
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "60")
    asked = functools.partial(mailbox.is_asked_to_stop, config[KEY]) if mailbox else bool
    host = TuneHost(cpus_per_worker=cpus_per_worker, is_asked_to_stop=asked)
    try:
        result = training_function(json.loads(config[PAYLOAD]), host)
    except (ValueError, ArithmeticError) as error:
        result = {"status": "failed", "reason": failure_reason(error)}
    except Exception as error:
        # Tune tries again where it may, and in the end hands over the error as a file to unpickle.
        tune.report(pack_reason(failure_reason(error)))
        raise
    return pack_result(result)


def _nested_trial(
    config: dict[str, Any],
    *,
    training_function: train_engine.TrainingFunction,
    demand: Demand,
    mailbox: Mailbox | None,
    max_failures: int,
) -> dict[str, Any]:
    result = train_engine.run(
        training_function,
        json.loads(config[PAYLOAD]),
        demand=demand,
        on_report=lambda metrics: tune.report(pack_report(metrics)),
        max_failures=max_failures,
        key=config[KEY],
        mailbox=mailbox,
    )
    return pack_result(result)


def _nobody_asks(key: str) -> None:
    """Without a stopping rule no run is asked to stop."""


def _trial_name(trial: Any) -> str:
    return str(trial.config[KEY])


@contextmanager
def _temporary_folder() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="distillery-ray-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quiet_tune() -> Iterator[None]:
    """Keep Tune's advice to itself: it speaks of restoring by Ray's own files, and repeats what listeners hear."""
    # SIGINT is handled by Interrupts.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
