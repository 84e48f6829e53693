"""The command line: ``distillery VERB FILE [key.sub=value ...]``.

Exit statuses: 0 done, 1 failed, 2 the user's file or command line is wrong. Nothing heavy is imported here: each verb
imports what it needs, so that help and errors of structure answer at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.errors import UserError

if TYPE_CHECKING:
    from orchestrator.config.experiment import Experiment

DONE, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130
STORAGE = "outputs"

EPILOG = """\
examples:
  distillery cp quickstart .                          start from a shipped search space
  distillery check quickstart.yaml                    what it will do, and what is wrong with it
  distillery sweep quickstart.yaml train.epochs=5     run it, with one key changed
  distillery compare quickstart                       which paths help, which hurt
  distillery ui                                       the same in MLflow

key.sub=value sets a key of the file; values are read as YAML: seed=3  aggregator={use: LogSum}  search.seed.grid=[0,1]
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if "settings" in options:
        # Settings may also follow flags, where argparse does not look for them.
        options.settings += [item for item in rest if not item.startswith("-")]
        rest = [item for item in rest if item.startswith("-")]
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    _log(verbose=options.debug)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except (UserError, ValueError) as error:
        _explain(error, str(error), debug=options.debug)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has seen enough; Python would complain again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        _explain(error, f"failed: {type(error).__name__}: {error} (--debug shows where)", debug=options.debug)
        return FAILED


def _explain(error: Exception, text: str, *, debug: bool) -> None:
    if debug:
        logging.getLogger(__name__).error("traceback:", exc_info=error)
    print(text, file=sys.stderr)


def _log(*, verbose: bool) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for package in ("distill", "orchestrator"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="distillery",
        description="Multi-path knowledge distillation: which paths help a student, and how to weigh them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    parser.set_defaults(debug=False)
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    train = _file_verb(verbs, "train", "one run: a student, its teacher and the paths between them", _train)
    _add(train, "--resume", action="store_true", help="continue from the last checkpoint")
    _add(train, "--address", help="of a Ray cluster; default: RAY_ADDRESS, else this machine")
    sweep = _file_verb(verbs, "sweep", "all runs of a file's search, and what they say", _sweep)
    _add(sweep, "--resume", action="store_true", help="continue; finished runs are kept")
    _add(sweep, "--dry-run", action="store_true", help="print the runs and start none")
    _add(sweep, "--address", help="of a Ray cluster; default: RAY_ADDRESS, else this machine")
    teach = _file_verb(verbs, "teach", "train and store the teacher that a file's runs will share", _teach)
    _add(teach, "--address", help="of a Ray cluster; default: RAY_ADDRESS, else this machine")
    check = _file_verb(verbs, "check", "everything that is wrong with a file, or what it will do", _check)
    _add(check, "--json", action="store_true", help="one JSON object for machines")

    compare = _verb(verbs, "compare", "the answer of a sweep: which paths help, which hurt", _compare)
    compare.add_argument("experiment", metavar="EXPERIMENT", help="its name, its folder or its file")
    _add(compare, "--json", action="store_true", help="one JSON object for machines")
    _add(compare, "--against", metavar="ARM", help="hold all arms against this one, as AGGREGATOR/PATH+PATH")
    _add(compare, "--metric", metavar="NAME", help="by another metric than the one that ranks, as val/iou/road")
    ui = _verb(verbs, "ui", "MLflow's UI on this machine, at the view that shows the answer", _ui)
    ui.add_argument("experiment", metavar="EXPERIMENT", nargs="?", help="its name or file; default: the latest")
    _add(ui, "--port", type=int, default=5000, help="default: 5000, or the next free one")
    sync = _verb(verbs, "sync", "bring to MLflow what it missed", _sync)
    sync.add_argument("experiment", metavar="EXPERIMENT", nargs="?", help="its name or file; default: all")
    for verb in (compare, ui, sync):
        _add(verb, "--storage", help=f"folder of all outputs; default: the file's run.storage, else {STORAGE}")
    for verb in (ui, sync):
        _add(verb, "--tracking-uri", help="MLflow store; default: the one that was recorded")

    ls = _verb(verbs, "ls", "what a file can name, and the shipped search spaces; ls NAME: all about one", _ls)
    kinds = "paths, aggregators, modifiers, models, datasets, search_spaces, ..."
    ls.add_argument("what", metavar="KIND|NAME", nargs="?", help=f"{kinds}; or one name, such as LogSum, to read about")
    cp = _verb(verbs, "cp", "copy a shipped search space to start from", _cp)
    cp.add_argument("name", metavar="NAME")
    cp.add_argument("destination", metavar="DEST", nargs="?", default=".", help="folder or new file; default: here")
    _add(cp, "--force", action="store_true", help="overwrite a file that exists")
    return parser


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)
    verb.set_defaults(run=run)
    _add(verb, "--debug", action="store_true", help="show tracebacks and more of what happens")
    return verb


def _file_verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    verb = _verb(verbs, name, summary, run)
    verb.add_argument("file", metavar="FILE", help="an experiment file")
    verb.add_argument("settings", metavar="key.sub=value", nargs="*", help="keys to set in it")
    return verb


def _add(parser: argparse.ArgumentParser, flag: str, **options: object) -> None:
    parser.add_argument(flag, **options)  # type: ignore[arg-type]


def _version() -> str:
    from importlib import metadata

    try:
        return f"distillery {metadata.version('distillery')}"
    except metadata.PackageNotFoundError:
        return "distillery (not installed)"


def _load(options: argparse.Namespace, *, build: bool = True) -> Experiment:
    """Read and check a file; errors of structure come before torch is imported."""
    from orchestrator.config.structure import load_structure

    experiment = load_structure(options.file, options.settings)
    _find_modules(experiment)
    from orchestrator.config.semantics import semantics

    experiment = semantics(experiment)
    if build:
        from orchestrator.build_branches import build_branches

        build_branches(experiment)
    return experiment


def _find_modules(experiment: Experiment) -> None:
    """Let modules that the file names be found in the current folder, as ``python -m`` would."""
    here = str(Path.cwd())
    if experiment.modules and here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _train(options: argparse.Namespace) -> int:
    experiment = _load(options)
    if experiment.search is not None:
        hint = f"distillery sweep {options.file}, or one run with search=null"
        raise UserError([f"{options.file}: has a section 'search', which is a sweep: {hint}"])
    from orchestrator.training import train

    return train(experiment, resume=options.resume, address=options.address)


def _sweep(options: argparse.Namespace) -> int:
    experiment = _load(options, build=not options.dry_run)
    if experiment.search is None:
        raise UserError([f"{options.file}: has no section 'search', so it is one run: distillery train {options.file}"])
    from orchestrator.sweep import sweep

    return sweep(experiment, resume=options.resume, address=options.address, dry_run=options.dry_run)


def _teach(options: argparse.Namespace) -> int:
    experiment = _load(options)
    if experiment.teacher is None:
        raise UserError([f"{options.file}: has no section 'teacher'"])
    from orchestrator.teachers import teach

    return teach(experiment, address=options.address)


def _check(options: argparse.Namespace) -> int:
    try:
        experiment = _load(options, build=False)
        from orchestrator.check import make_plan

        plan = make_plan(experiment)
    except UserError as error:
        if not options.json:
            raise
        print(json.dumps({"ok": False, "mistakes": [mistake.plain() for mistake in error.mistakes]}, indent=2))
        return USER_ERROR
    text = json.dumps({"ok": True, **plan.plain()}, indent=2) if options.json else "\n".join(plan.lines())
    print(text)
    return DONE


def _compare(options: argparse.Namespace) -> int:
    name, storage = _experiment(options)
    from orchestrator.compare import command

    return command(str(name), storage=storage, as_json=options.json, against=options.against, metric=options.metric)


def _ui(options: argparse.Namespace) -> int:
    name, storage = _experiment(options)
    from orchestrator.ui import serve

    return serve(name, storage=Path(storage), tracking_uri=options.tracking_uri, port=options.port)


def _sync(options: argparse.Namespace) -> int:
    name, storage = _experiment(options)
    from orchestrator.sync import sync

    return sync(Path(storage), name, tracking_uri=options.tracking_uri)


def _experiment(options: argparse.Namespace) -> tuple[str | None, str]:
    """Return an experiment's name and where it lies; a file says both."""
    name: str | None = options.experiment
    if name is not None and name.endswith((".yaml", ".yml")):
        from orchestrator.config.structure import load_structure

        experiment = load_structure(name)
        return experiment.name, options.storage or experiment.run.storage
    return name, options.storage or STORAGE


def _ls(options: argparse.Namespace) -> int:
    from orchestrator.catalogue import ls

    return ls(options.what)


def _cp(options: argparse.Namespace) -> int:
    from orchestrator.catalogue import cp

    return cp(options.name, options.destination, force=options.force)
