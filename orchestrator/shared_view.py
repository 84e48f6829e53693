"""The view of MLflow's UI that shows a sweep's answer: columns, order and charts, stored in the experiment.

A bare MLflow link opens an empty page, and its table shows no metric. The UI reads a view from the experiment's tag
``mlflow.sharedViewState.<key>`` when a link names the key. That format is not documented (MLflow 3.17:
``ExperimentPageUIState.tsx``, ``useSharedExperimentViewState.ts``); a UI that does not know it shows its plain page.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from orchestrator.metric_names import in_words

TAG_PREFIX = "mlflow.sharedViewState."
RUNS_VIEW = "distillery"
ARMS_VIEW = "distillery-arms"
MAX_TAG_LENGTH = 20_000

_NUM_RUNS = 100  # a chart draws; MLflow's own default is 10
_ORDER_BY = "metrics.`result/gain`"
_ANSWER, _LEARNING, _SHARES, _WEIGHTS, _LOSSES = "answer", "learning", "shares", "weights", "losses"


def arranged_views(path_names: Sequence[str], *, metric: str, picture_keys: Sequence[str] = ()) -> dict[str, str]:
    """Return the experiment tags that hold the views: every run, and the runs averaged over the seeds of an arm.

    Args:
        path_names: the paths of the sweep; each gets a chart of its share, weight and loss.
        metric: name of the metric that ranks, without its split.
        picture_keys: pictures of the sweep's own run, such as ``compare/path_effect``. The view of every run begins
            with them; name only such as exist, since a missing one leaves an empty frame.
    """
    return {
        TAG_PREFIX + RUNS_VIEW: _packed(_state(path_names, metric, picture_keys, group_by_arm=False)),
        # The pictures belong to the sweep's own run, which is no arm: this view would show empty frames.
        TAG_PREFIX + ARMS_VIEW: _packed(_state(path_names, metric, (), group_by_arm=True)),
    }


def view_link(
    base_url: str, experiment_id: str, *, key: str = RUNS_VIEW, mode: Literal["CHART", "TABLE"] = "CHART"
) -> str:
    """Return the link that opens an arranged view.

    Args:
        base_url: address of the MLflow server.
        experiment_id: MLflow's id of the experiment.
        key: :data:`RUNS_VIEW` or :data:`ARMS_VIEW`.
        mode: charts, or the table of runs.
    """
    query = f"workflowType=machine_learning&viewStateShareKey={quote(key)}&compareRunsMode={mode}"
    return f"{base_url.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs?{query}"


def experiment_note(sentence: str, table_markdown: str) -> str:
    """Return an experiment's note: its first line stays visible above every table and chart of the experiment.

    Args:
        sentence: the answer; line breaks in it are closed up.
        table_markdown: shown when the note is unfolded.
    """
    return f"{' '.join(sentence.split())}\n\n{table_markdown.strip()}\n"


def unpack(tag_value: str) -> dict[str, Any]:
    """Return the view that a tag holds."""
    if tag_value.startswith("deflate;"):
        tag_value = zlib.decompress(base64.b64decode(tag_value.removeprefix("deflate;"))).decode()
    state: dict[str, Any] = json.loads(tag_value)
    return state


def _packed(state: Mapping[str, Any]) -> str:
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()
    if len(packed) > MAX_TAG_LENGTH:
        raise ValueError(f"arranged view: must fit a tag of {MAX_TAG_LENGTH} characters; found {len(packed)}")
    return packed


def _columns(metric: str) -> dict[str, int]:
    """Return the columns of the table in their order, with their widths in pixels: which run it is, what came out."""
    return {
        "params.`aggregator`": 110,
        "params.`paths`": 300,
        "params.`seed`": 70,
        "metrics.`result/gain`": 110,
        f"metrics.`result/{metric}`": 130,
        f"metrics.`result/test_{metric}`": 160,
        "metrics.`result/minutes`": 120,
    }


def _state(
    path_names: Sequence[str], metric: str, picture_keys: Sequence[str], *, group_by_arm: bool
) -> dict[str, Any]:
    columns = _columns(metric)
    group = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "arm"}]}
    gains = "What every arm gains, mean over seeds" if group_by_arm else "Which paths help, and what every run gains"
    sections = {  # title, columns, height of a chart in pixels
        _ANSWER: (gains, 2, 620),
        _LEARNING: ("Learning", 3, 360),
        _SHARES: ("Share of each path in the total loss", 2, 360),
        _WEIGHTS: ("Path weights", 2, 360),
        _LOSSES: ("Path losses", 2, 360),
    }
    return {
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "columnWidths": columns,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": _charts(path_names, metric, picture_keys),
        "compareRunSections": [
            {
                "uuid": uuid,
                "name": name,
                "display": True,
                "isReordered": True,
                "columns": num_columns,
                "cardHeight": height,
            }
            for uuid, (name, num_columns, height) in sections.items()
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "groupBy": group if group_by_arm else None,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
        "searchFilter": "",
        "orderByKey": _ORDER_BY,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
    }


def _charts(path_names: Sequence[str], metric: str, picture_keys: Sequence[str]) -> list[dict[str, Any]]:
    learning = dict.fromkeys((f"val/{metric}", "val/agreement", "train/loss/task"))
    return [
        *(_chart("IMAGE", _ANSWER, key, imageKeys=[key], step=0, showRunParams=False) for key in picture_keys),
        _chart("BAR", _ANSWER, "result/gain", metricKey="result/gain", runsCountToCompare=_NUM_RUNS),
        _chart(
            "SCATTER",
            _ANSWER,
            f"{in_words(metric)} against minutes",
            xaxis={"key": "result/minutes", "type": "METRIC"},
            yaxis={"key": f"result/{metric}", "type": "METRIC"},
            runsCountToCompare=_NUM_RUNS,
        ),
        *(_line(name, _LEARNING) for name in learning),
        *(_line(f"train/share/{path}", _SHARES) for path in path_names),
        *(_line(f"train/weight/{path}", _WEIGHTS) for path in path_names),
        *(_line(f"train/loss/{path}", _LOSSES) for path in path_names),
    ]


def _chart(kind: str, section: str, name: str, **options: Any) -> dict[str, Any]:
    return {
        "uuid": f"{section}-{name}",
        "type": kind,
        "deleted": False,
        "isGenerated": False,
        "metricSectionId": section,
        "displayName": name,
        **options,
    }


def _line(metric: str, section: str) -> dict[str, Any]:
    return _chart(
        "LINE",
        section,
        metric,
        metricKey=metric,
        selectedMetricKeys=[metric],
        lineSmoothness=0,
        scaleType="linear",
        xAxisScaleType="linear",
        xAxisKey="step",
        selectedXAxisMetricKey="",
        range={},
        yAxisKey="metric",
        yAxisExpressions=[],
        useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True,
        runsCountToCompare=_NUM_RUNS,
    )
