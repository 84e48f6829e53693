"""Runs one training on several workers, through Ray Train."""

from __future__ import annotations

import functools
import logging
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.train import ControllerError, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchTrainer

from distill.host import Host
from orchestrator.demand import Demand
from orchestrator.failure_reason import failure_reason
from orchestrator.hosts import TrainHost
from orchestrator.hosts.messages import report_in
from orchestrator.leftover_workers import LeftoverWorkers
from orchestrator.mailbox import Mailbox

TrainingFunction = Callable[[dict[str, Any], Host], dict[str, Any]]
"""Trains what the plain data say, on a host, and returns the result; found again by its name on every node."""

LOOK_SECONDS = 0.2
"""How often the driver looks for reports."""


def run(
    training_function: TrainingFunction,
    payload: Mapping[str, Any],
    *,
    demand: Demand,
    on_report: Callable[[dict[str, Any]], None],
    max_failures: int = 0,
    key: str = "run",
    mailbox: Mailbox | None = None,
) -> dict[str, Any]:
    """Train on the workers that ``demand`` names and return rank 0's result.

    Ray neither keeps checkpoints nor resumes here: its run has a new name and a temporary folder, and workers that are
    started again find the run's own last checkpoint themselves.

    Args:
        training_function: called on every rank with ``payload`` and its host.
        payload: plain data.
        demand: workers, and CPUs and GPUs of each.
        on_report: called in this process, in another thread, with rank 0's metrics of each epoch, in order; all calls
            have returned before this function does.
        max_failures: how often the workers are started again after one has died or raised.
        key: the run's name in ``mailbox``.
        mailbox: where the run can be asked to stop; one of its own by default.

    Returns:
        The result; ``{"status": "failed", "reason": ...}`` where the training raised more often than allowed.

    Raises:
        KeyboardInterrupt: the run was interrupted; its checkpoints remain.
    """
    box = mailbox or Mailbox()
    config = {
        "training_function": training_function,
        "payload": dict(payload),
        "cpus_per_worker": demand.cpus_per_worker,
        "mailbox": box,
        "key": key,
    }
    try:
        with _quiet_train(), _own_interrupts(), _delivering(box, key, on_report):
            return _fit(config, demand, max_failures)
    except TrainingFailedError as error:
        return {"status": "failed", "reason": failure_reason(error)}
    finally:
        if mailbox is None:
            box.close()


def _fit(config: dict[str, Any], demand: Demand, max_failures: int) -> dict[str, Any]:
    """Let Train run the workers, and once more where it gives up itself: when a worker dies while the group starts."""
    folder = tempfile.mkdtemp(prefix="distillery-ray-")
    trainer = TorchTrainer(
        _work,  # type: ignore[arg-type]
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=demand.workers,
            use_gpu=demand.gpus_per_worker > 0,
            resources_per_worker=demand.resources_per_worker(),
        ),
        run_config=RunConfig(
            name=f"{config['key']}-{uuid.uuid4().hex[:8]}",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=max_failures),
            callbacks=[_Relay(config["mailbox"], config["key"]), LeftoverWorkers()],  # type: ignore[list-item]
        ),
    )
    try:
        result: dict[str, Any] = trainer.fit().return_value  # type: ignore[attr-defined]
    except ControllerError:
        if max_failures == 0:
            raise
    else:
        return result
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _fit(config, demand, max_failures - 1)


def _work(config: dict[str, Any]) -> dict[str, Any]:
    training_function: TrainingFunction = config["training_function"]
    host = TrainHost(
        cpus_per_worker=config["cpus_per_worker"],
        is_asked_to_stop=functools.partial(config["mailbox"].is_asked_to_stop, config["key"]),
    )
    return training_function(config["payload"], host)


class _Relay(UserCallback):
    """Sits in Train's controller, the only process that hears the workers, and sends rank 0's reports on."""

    def __init__(self, mailbox: Mailbox, key: str) -> None:
        self._mailbox = mailbox
        self._key = key

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        report = report_in(metrics[0])
        if report is not None:
            self._mailbox.post(self._key, report)


@contextmanager
def _delivering(mailbox: Mailbox, key: str, on_report: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Call ``on_report`` from a thread while Ray trains; what it raises ends the run, and is raised here then."""
    ended = threading.Event()
    errors: list[BaseException] = []

    def deliver() -> None:
        try:
            while not ended.wait(LOOK_SECONDS):
                for report in mailbox.take(key):
                    on_report(report)
            for report in mailbox.take(key):
                on_report(report)
        except BaseException as error:
            errors.append(error)
            mailbox.ask_to_stop(key)  # nobody listens any more

    thread = threading.Thread(target=deliver, name=f"reports of {key}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if errors:
        raise errors[0]


@contextmanager
def _own_interrupts() -> Iterator[None]:
    """Let an interrupt end the training as an interrupt, and put back the handler that Train leaves behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:  # Train's way to say that it has ended its workers
        raise KeyboardInterrupt from error
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def _quiet_train() -> Iterator[None]:
    logger = logging.getLogger("ray.train")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
