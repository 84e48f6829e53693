"""A sweep, from its plan to its answer."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

from orchestrator import sweep_engine
from orchestrator.arm_source import ArmSource
from orchestrator.cluster import Cluster
from orchestrator.conclusion import conclude
from orchestrator.config import Experiment, PlannedRun
from orchestrator.config.design import Design
from orchestrator.config.refusal import refusal
from orchestrator.demand import Demand
from orchestrator.description import describe
from orchestrator.execute import execute
from orchestrator.gpu_share import Memory, demanding_configs, find_demand
from orchestrator.job import Job
from orchestrator.lock import lock
from orchestrator.no_arms import NoArms
from orchestrator.outputs import Outputs
from orchestrator.plan import count_line, count_runs, plan_lines
from orchestrator.progress import Progress
from orchestrator.ranking import Ranking
from orchestrator.run_listener import RunListener
from orchestrator.say import say
from orchestrator.session import Session
from orchestrator.store import StorePlan, expected_runs, fill_jobs, plan_store
from orchestrator.store.on_cluster import ClusterWork
from orchestrator.teachers import prepare_teachers, teacher_branches
from orchestrator.teaching import teacher_directory
from orchestrator.tracking import SweepLog, Target, Tracker, spool_directory


def sweep(experiment: Experiment, *, resume: bool, address: str | None, dry_run: bool) -> int:
    """Run all arms on all seeds, and the student alone; then compare.

    Args:
        experiment: a checked file with a search.
        resume: go on with what an earlier session left.
        address: of a Ray cluster; ``None``: the one that runs here, or a new local one.
        dry_run: print the plan only.

    Returns:
        0; 1 where a run failed.
    """
    design = Design(experiment, partial(refusal, modules=experiment.modules))
    if dry_run:
        print("\n".join(plan_lines(design)))
        return 0
    print("\n".join([f"{experiment.name}: {count_line(design)}", *design.notes]), flush=True)
    outputs = Outputs(experiment.run.storage, experiment.name)
    with lock(outputs.remote.uri, command=f"sweep {experiment.name}"):
        description = describe(experiment, planned=None if design.is_sampled else len(design.planned()))
        outputs.claim(description, resume=resume)
        target = Target.beside(outputs.driver_root, experiment.name, experiment.run.tracking_uri)
        with Tracker(spool_directory(outputs.driver_root, experiment.name), target=target) as tracker:
            mirror = SweepLog(tracker, description, source=experiment.document.name)
            mirror.start()
            try:
                num_failed = _run(experiment, design, outputs, mirror, address=address)
            except BaseException:
                mirror.end("KILLED")
                raise
            conclude(outputs, mirror)
            mirror.end("FAILED" if num_failed else "FINISHED")
    return 1 if num_failed else 0


def _run(experiment: Experiment, design: Design, outputs: Outputs, mirror: SweepLog, *, address: str | None) -> int:
    """Run what has not ended yet; return how many runs of this session failed."""
    run, ranking = experiment.run, experiment.run.ranking
    session = Session(outputs, mirror)
    with Cluster(address, with_dashboard=run.workers > 1) as cluster:
        cluster.check_storage(outputs.root.uri)
        groups = cluster.node_groups()
        demand = find_demand(run, groups, measure=partial(_measure_memory, design), say=say)
        demand.check_fits(groups)
        source = ArmSource(design, design.proposer(), limit=run.num_arms, on_new=outputs.proposed)
        first = [*design.controls(), *(each for arm in outputs.past_arms() for each in source.resume(arm))]
        teachers = prepare_teachers(
            teacher_branches(design),
            outputs.root,
            run_jobs=partial(
                _run_teachers, cluster=cluster, demand=demand, ranking=ranking, max_failures=run.max_failures
            ),
            mirror=mirror,
            say=say,
        )
        outputs.note_teachers(teachers)
        plan = _store_targets(experiment, design, outputs, cluster, demand)
        past = outputs.past_runs()
        num_runs = count_runs(design)["total"]
        with Progress(sys.stdout, metric=ranking.metric, mode=ranking.mode, num_runs=num_runs) as progress:
            for planned, result, history in outputs.ended_of([*first, *design.planned()]):
                mirror.know(planned, result)
                progress.recall(planned, history=history, status=result["status"])
            sweep_engine.run(
                execute,
                cluster=cluster,
                demand=demand,
                first=first,
                proposer=source,
                payload=partial(_payload, outputs=outputs, plan=plan),
                listeners=[session, progress],
                metric=ranking.metric,
                mode=ranking.mode,
                num_epochs=experiment.train.epochs,
                stopping_rule=run.stopping_rule,
                max_concurrent=run.max_concurrent,
                max_failures=run.max_failures,
                past=past,
            )
    return session.num_failed


def _measure_memory(design: Design) -> list[Memory]:
    """See what the most demanding runs of each kind take of a GPU."""
    return ClusterWork(Demand(gpus_per_worker=1)).measure_memory(demanding_configs(expected_runs(design)))


def _store_targets(
    experiment: Experiment, design: Design, outputs: Outputs, cluster: Cluster, demand: Demand
) -> StorePlan:
    """Decide which of the teacher's answers are worth storing for the runs that are left, and store them."""
    ended = {key for key, record in outputs.past_results().items() if record["result"]["status"] == "finished"}
    work = ClusterWork(demand)
    plan = plan_store(
        [run for run in expected_runs(design) if run.key not in ended],
        mode=experiment.store,
        budget_gib=experiment.run.store_gib,
        storage=outputs.root,
        measure=work.measure,
    )
    for line in plan.lines():
        say(line)
    jobs = fill_jobs(
        plan,
        num_places=demand.most_at_once(cluster.node_groups()) * demand.workers,
        teacher_of=partial(teacher_directory, storage=outputs.root),
    )
    if jobs:
        work.fill(jobs, say)
        plan.keep_to_budget()
    return plan


def _payload(planned: PlannedRun, *, outputs: Outputs, plan: StorePlan) -> dict[str, Any]:
    return Job(
        config=planned.config,
        config_hash=planned.config_hash,
        directory=outputs.run_directory(planned.key),
        teacher=teacher_directory(planned.config, outputs.root),
        store=plan.job(planned.config),
        name=planned.name,
    ).to_dict()


def _run_teachers(
    runs: Mapping[str, PlannedRun],
    jobs: Mapping[str, Job],
    listener: RunListener,
    *,
    cluster: Cluster,
    demand: Demand,
    ranking: Ranking,
    max_failures: int,
) -> None:
    """Train teachers as runs of the cluster, so that they get the same CPUs and GPUs as students."""
    sweep_engine.run(
        execute,
        cluster=cluster,
        demand=demand,
        first=list(runs.values()),
        proposer=NoArms(),
        payload=lambda run: jobs[run.key].to_dict(),
        listeners=[listener],
        metric=ranking.metric,
        mode=ranking.mode,
        num_epochs=max(run.config["train"]["epochs"] for run in runs.values()),
        max_failures=max_failures,
    )
