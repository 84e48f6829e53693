"""Arms proposed by Optuna."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from orchestrator.config.arm import Arm
from orchestrator.config.errors import UserError

if TYPE_CHECKING:
    from orchestrator.config.design import Design

TRIES = 100
"""How often Optuna is asked again because it proposed an arm that is refused or known."""


class OptunaProposer:
    """Asks Optuna's TPE sampler for arms and tells it the mean over their seeds.

    Grids are categorical parameters here. Source: https://optuna.readthedocs.io, the ask-and-tell interface.

    Args:
        design: what to choose from.
        num_arms: how many arms to propose.
        seed: of the sampler.
        mode: whether more of the metric is better.

    Raises:
        UserError: optuna is not installed.
    """

    def __init__(self, design: Design, *, num_arms: int, seed: int, mode: Literal["max", "min"]) -> None:
        try:
            import optuna
        except ModuleNotFoundError as error:
            hint = "run.searcher: optuna is not installed: pip install 'distillery[optuna]'"
            raise UserError([hint]) from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._design = design
        self._left = num_arms
        self._seed = seed
        self._distributions = {key: domain.distribution() for key, domain in design.domains.items()}
        self._study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
        self._known: set[str] = set()
        self._open: dict[str, Any] = {}
        self._is_seeded = False

    def propose(self) -> Arm | None:
        """Return the next arm; ``None``: ``num_arms`` were proposed, or Optuna finds nothing new."""
        if not self._is_seeded:
            # By what was told before: the same seed would propose the first random arms of the first attempt again.
            sampler = self._optuna.samplers.TPESampler(seed=self._seed + len(self._known), constant_liar=True)
            self._study.sampler = sampler
            self._is_seeded = True
        for _ in range(TRIES if self._left > 0 else 0):
            trial = self._study.ask(self._distributions)
            arm = self._design.arm(trial.params)
            if arm.name in self._known or self._design.refusal(arm):
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
                continue
            self._known.add(arm.name)
            self._open[arm.name] = trial
            self._left -= 1
            return arm
        return None

    def tell(self, arm: Arm, value: float | None) -> None:
        """Take in the mean of an arm's metric over its seeds; ``None``: the arm was stopped or has failed."""
        states = self._optuna.trial.TrialState
        trial = self._open.pop(arm.name, None)
        if trial is not None:
            self._study.tell(trial, value, state=states.FAIL if value is None else states.COMPLETE)
        elif arm.name not in self._known:
            self._known.add(arm.name)
            self._left -= 1
            self._study.add_trial(
                self._optuna.trial.create_trial(
                    params=self._design.assignment(arm),
                    distributions=self._distributions,
                    value=value,
                    state=states.FAIL if value is None else states.COMPLETE,
                )
            )
