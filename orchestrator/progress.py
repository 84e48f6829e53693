"""How a sweep is going, for whoever watches: a line for each run that ends, and a live table on a terminal."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO

from orchestrator.duration import duration

if TYPE_CHECKING:
    from orchestrator.config.planned_run import PlannedRun

REFRESH_SECONDS = 2.0
"""The live table is not drawn more often."""

UP_AND_CLEAR = "\x1b[{lines}F\x1b[J"
"""Terminal code: to the start of the line that many lines above, and clear all below."""


class Progress:
    """Prints what happens to the runs of a sweep; a :class:`orchestrator.run_listener.RunListener`.

    The gain is the difference to the student alone of the same seed, after the same epoch, positive where it is better.

    Use it in ``with``: at the end it prints how many runs ended in which way.

    Args:
        stream: where to print; a live table only where it is a terminal.
        metric: name of the metric in the reports.
        mode: whether more of it is better.
        num_runs: how many runs there will be, where that is known: it takes that to tell how much time is left.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        metric: str,
        mode: Literal["min", "max"] = "max",
        num_runs: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metric = metric
        self._sign = 1.0 if mode == "max" else -1.0
        self._num_runs = num_runs
        self._stream = stream
        self._clock = clock
        self._is_live = self._stream.isatty()
        self._begun = clock()
        self._drawn_at = -REFRESH_SECONDS
        self._drawn_lines = 0
        self._runs: dict[str, _Watched] = {}
        self._num_recalled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def recall(self, run: PlannedRun, *, history: Sequence[Mapping[str, Any]], status: str) -> None:
        """Take in a run that ended in an earlier session, without a word."""
        self._runs[run.key] = _Watched(run, self._begun, status)
        self._num_recalled += 1
        for metrics in history:
            self._note(run, metrics)

    def started(self, run: PlannedRun) -> None:
        """Show a run among the running ones."""
        self._runs[run.key] = _Watched(run, self._clock(), "running")
        self._refresh()

    def reported(self, run: PlannedRun, metrics: Mapping[str, Any]) -> None:
        """Show how far a run has come."""
        self._note(run, metrics)
        self._refresh()

    def ended(self, run: PlannedRun, result: Mapping[str, Any]) -> None:
        """Print the line of a run that has ended."""
        watched = self._runs.setdefault(run.key, _Watched(run, self._clock(), "running"))
        watched.status = str(result["status"])
        watched.reason = str(result.get("reason", ""))
        self._erase()
        print(self._ended_line(watched), file=self._stream, flush=True)
        self._drawn_at = -REFRESH_SECONDS
        self._refresh()

    def close(self) -> None:
        """Take the table away and print how many runs ended in which way."""
        self._erase()
        counts = Counter(watched.status for watched in self._runs.values())
        ways = [f"{counts[status]} {status}" for status in ("finished", "stopped", "failed") if counts[status]]
        if counts["running"]:
            ways.append(f"{counts['running']} interrupted")
        ended = len(self._runs) - counts["running"]
        runs = f"{ended} run" if ended == 1 else f"{ended} runs"
        earlier = f" ({self._num_recalled} of them earlier)" if self._num_recalled else ""
        took = duration(self._clock() - self._begun)
        print(f"{runs} ended{earlier} in {took}: {', '.join(ways) or 'none'}", file=self._stream, flush=True)

    def _note(self, run: PlannedRun, metrics: Mapping[str, Any]) -> None:
        value = metrics.get(self._metric)
        watched = self._runs[run.key]
        watched.epoch = int(metrics["epoch"])
        if value is not None:
            watched.values[watched.epoch] = float(value)

    def _refresh(self) -> None:
        now = self._clock()
        if not self._is_live or now - self._drawn_at < REFRESH_SECONDS:
            return
        self._erase()
        width = shutil.get_terminal_size().columns
        lines = [line[: width - 1] for line in self._table()]
        print("\n".join(lines), file=self._stream, flush=True)
        self._drawn_lines = len(lines)
        self._drawn_at = now

    def _erase(self) -> None:
        if self._drawn_lines:
            self._stream.write(UP_AND_CLEAR.format(lines=self._drawn_lines))
            self._drawn_lines = 0

    def _table(self) -> list[str]:
        running = [watched for watched in self._runs.values() if watched.status == "running"]
        width = max([len("arm"), *(len(watched.run.arm) for watched in running)])
        head = f"  {'arm':<{width}}  seed    epoch  {self._metric:>12}    gain"
        rows = [
            f"  {watched.run.arm:<{width}}  {watched.run.seed:>4}  {watched.so_far():>7}  "
            f"{watched.shown():>{max(12, len(self._metric))}}  {self._gain(watched):>6}"
            for watched in running
        ]
        return [head, *rows, f"  {self._status_line(len(running))}"]

    def _status_line(self, num_running: int) -> str:
        counts = Counter(watched.status for watched in self._runs.values())
        ended = len(self._runs) - num_running
        of = f" of {self._num_runs}" if self._num_runs is not None else ""
        bad = [f"{counts[status]} {status}" for status in ("stopped", "failed") if counts[status]]
        of_them = f" ({', '.join(bad)})" if bad else ""
        return "; ".join([f"{ended}{of} ended{of_them}, {num_running} running", *self._best(), *self._left()])

    def _ended_line(self, watched: _Watched) -> str:
        ended = sum(other.status != "running" for other in self._runs.values())
        count = f"{ended}/{self._num_runs}" if self._num_runs is not None else str(ended)
        took = duration(self._clock() - watched.started)
        if watched.status == "failed":
            return f"[{count}] {watched.run.name}: failed: {watched.reason}"
        parts = [took]
        if watched.values:
            gain = self._gain(watched)
            parts = [f"{self._metric} {watched.shown()}", *([f"gain {gain}"] if gain else []), took]
        if watched.status == "stopped":
            parts.append(f"stopped after epoch {watched.so_far()}")
        return f"[{count}] {watched.run.name}: {'; '.join([', '.join(parts), *self._best(), *self._left()])}"

    def _gain(self, watched: _Watched) -> str:
        alone = self._alone(watched.run)
        if watched.run.kind == "student" or alone is None:
            return ""
        last = max(watched.values, default=0)
        if last not in alone.values:
            return ""
        return f"{self._sign * (watched.values[last] - alone.values[last]):+.2f}"

    def _alone(self, run: PlannedRun) -> _Watched | None:
        """Return the control of the same seed that agrees with ``run`` in most of what is varied."""
        fitting = [
            watched
            for watched in self._runs.values()
            if watched.run.kind == "student"
            and watched.run.seed == run.seed
            and all(run.context.get(key) == value for key, value in watched.run.context.items())
        ]
        return max(fitting, key=lambda watched: len(watched.run.context), default=None)

    def _best(self) -> list[str]:
        arms: dict[str, list[float]] = {}
        for watched in self._runs.values():
            if watched.status == "finished" and watched.values:
                arms.setdefault(watched.run.arm, []).append(watched.last())
        if not arms:
            return []
        best = max(arms, key=lambda arm: self._sign * fmean(arms[arm]))
        seeds = f", mean of {len(arms[best])} seeds" if len(arms[best]) > 1 else ""
        return [f"best so far {best} {fmean(arms[best]):.2f}{seeds}"]

    def _left(self) -> list[str]:
        """Estimate by the share of all epochs that is done, which holds for any number of runs at once."""
        if self._num_runs is None:
            return []
        done = sum(watched.share() for watched in self._runs.values()) - self._num_recalled
        left = self._num_runs - self._num_recalled - done
        elapsed = self._clock() - self._begun
        if done <= 0 or left <= 0:
            return []
        return [f"about {duration(elapsed * left / done)} left"]


@dataclass
class _Watched:
    run: PlannedRun
    started: float
    status: str
    reason: str = ""
    epoch: int = 0
    values: dict[int, float] = field(default_factory=dict)

    @property
    def num_epochs(self) -> int | None:
        epochs: int | None = self.run.config.get("train", {}).get("epochs")
        return epochs

    def last(self) -> float:
        return self.values[max(self.values)]

    def shown(self) -> str:
        return f"{self.last():.2f}" if self.values else ""

    def so_far(self) -> str:
        return f"{self.epoch}/{self.num_epochs}" if self.num_epochs else str(self.epoch)

    def share(self) -> float:
        if self.status != "running":
            return 1.0
        return min(1.0, self.epoch / self.num_epochs) if self.num_epochs else 0.0
