"""The server of ``distillery ui``: MLflow's own, with one page more, ``/distillery/<experiment>``.

The page leads to the experiment's arranged view. It also notes in the browser that MLflow's assistant was shown:
otherwise the assistant's panel covers a quarter of the screen on the first visit (MLflow 3.17,
``mlflow.assistant.fab.autoOpenedOnFirstLoad``). Only a page of the server itself may write there.

Started by :mod:`orchestrator.ui` as ``python -m orchestrator.tracking.front_door STORE ARTIFACTS HOST PORT``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any, Literal

from orchestrator.shared_view import ARMS_VIEW, RUNS_VIEW, view_link

PATH = "/distillery"
_ASSISTANT_WAS_SHOWN = "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"
_PAGE = """<!doctype html><meta charset="utf-8"><title>Distillery</title>
<script>localStorage.setItem({key}, "true"); location.replace({link});</script>
<noscript>MLflow's UI needs JavaScript.</noscript>
"""


def create_app(tracking_uri: str) -> Any:
    """Return MLflow's ASGI application with the additional page; its environment must be set before.

    Args:
        tracking_uri: the database whose experiments the page finds.
    """
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import HTMLResponse
    from mlflow.server.fastapi_app import app
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri)
    door = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def page(name: str, view: str, mode: Literal["CHART", "TABLE"] = "CHART") -> HTMLResponse:
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise HTTPException(404, f"no experiment is called {name!r}")
        link = view_link("", str(experiment.experiment_id), key=view, mode=mode)
        return HTMLResponse(_PAGE.format(key=json.dumps(_ASSISTANT_WAS_SHOWN), link=json.dumps(link)))

    @door.get("/{name}")
    def runs(name: str) -> HTMLResponse:
        return page(name, RUNS_VIEW)

    @door.get("/{name}/arms")
    def arms(name: str) -> HTMLResponse:
        return page(name, ARMS_VIEW)

    @door.get("/{name}/table")
    def table(name: str) -> HTMLResponse:
        return page(name, RUNS_VIEW, "TABLE")

    app.mount(PATH, door)
    # MLflow mounts its old application at "/", behind which nothing is reached.
    app.router.routes.insert(0, app.router.routes.pop())
    return app


def main(tracking_uri: str, artifact_root: str, host: str, port: str) -> None:
    """Serve until a signal, or the end of the parent process, ends this one."""
    import uvicorn
    from mlflow.server import constants

    # What `mlflow server` hands to its workers (mlflow/server/__init__.py, _run_server).
    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = tracking_uri
    os.environ[constants.REGISTRY_STORE_URI_ENV_VAR] = tracking_uri
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = artifact_root
    threading.Thread(target=_end_with_parent, name="parent watch", daemon=True).start()
    uvicorn.run(create_app(tracking_uri), host=host, port=int(port), log_level="warning")


def _end_with_parent() -> None:
    """End when the other end of standard input does: a killed ``distillery ui`` must not leave a server behind."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(*sys.argv[1:])
