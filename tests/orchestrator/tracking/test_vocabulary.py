from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow.utils.validation import _validate_metric_name

from orchestrator.ranking import Ranking
from orchestrator.tracking.vocabulary import epoch_metrics, flat_params, gain_metrics, result_metrics, run_params

RANKING = Ranking("val/accuracy", "max")

RESULT = {
    "status": "finished",
    "minutes": 1.23456,
    "validation": {"accuracy": 86.74, "top5": 99.1, "agreement": 91.0, "calibration_error": 0.031, "loss": 0.4},
    "test": {"accuracy": 86.123456789, "agreement": 90.0},
    "teacher": {"validation": {"accuracy": 92.5}, "test": {"accuracy": 92.0}},
    "student_parameters": 78_042,
}


def test_params_are_flat():
    assert flat_params(
        {
            "seed": 0,
            "train": {"optimizer": {"use": "torch.optim.SGD", "lr": 0.1}, "scheduler": None, "channels_last": False},
            "data": {"augment": [{"use": "RandomCrop", "padding": 2}, {"use": "RandomHorizontalFlip"}]},
            "modules": [],
            "search": {"seed": {"grid": [0, 1]}},
        }
    ) == {
        "seed": "0",
        "train.optimizer.use": "torch.optim.SGD",
        "train.optimizer.lr": "0.1",
        "train.scheduler": "null",
        "train.channels_last": "false",
        "data.augment.0.use": "RandomCrop",
        "data.augment.0.padding": "2",
        "data.augment.1.use": "RandomHorizontalFlip",
        "modules": "[]",
        "search.seed.grid": "[0, 1]",
    }


def test_home_folder_is_not_published():
    home = str(Path.home())
    params = flat_params({"a": f"{home}/data", "b": home, "c": f"{home}2/data"})
    assert params == {"a": "~/data", "b": "~", "c": f"{home}2/data"}


def test_run_params_name_what_tables_need():
    run = SimpleNamespace(
        aggregator="adaptive",
        paths=("attention", "nst"),
        seed=3,
        config={"train": {"epochs": 20, "batch_size": 64, "optimizer": {"lr": 0.1}}},
    )
    params = run_params(run, path_names=["attention", "nst", "soft_target"], labels={"teacher": "ResNet32x4"})
    expected = {
        "aggregator": "adaptive",
        "paths": "attention+nst",
        "seed": "3",
        "path.attention": "on",
        "path.nst": "on",
        "path.soft_target": "off",
        "teacher": "ResNet32x4",
        "epochs": "20",
        "batch": "64",
        "lr": "0.1",
    }
    assert expected.items() <= params.items()


def test_epoch_metrics_leave_out_the_clock():
    report = {
        "epoch": 3,
        "step": 93,
        "seconds": 4.5,
        "train/loss/total": 1.5,
        "val/top5": 99,
        "note": "x",
        "flag": True,
    }
    assert epoch_metrics(report) == {"train/loss/total": 1.5, "val/top5": 99.0}


def test_results_are_validation_and_unrounded():
    assert result_metrics(RESULT, "accuracy") == {
        "result/accuracy": 86.74,
        "result/test_accuracy": 86.123456789,
        "result/agreement": 91.0,
        "result/calibration_error": 0.031,
        "result/teacher_accuracy": 92.5,
        "result/minutes": 1.23,
        "result/parameters_m": 0.078042,
    }


def test_without_validation_the_test_split_stands_in():
    paper = RESULT | {"validation": None, "teacher": None}
    assert result_metrics(paper, "accuracy")["result/accuracy"] == 86.123456789
    assert "result/teacher_accuracy" not in result_metrics(paper, "accuracy")


def test_failed_run_has_no_results():
    failed = {"status": "failed", "reason": "loss is not finite", "validation": None, "test": None}
    assert result_metrics(failed, "accuracy") == {}


def test_gain_is_the_difference_to_the_student_alone():
    alone = RESULT | {"validation": {"accuracy": 82.62}, "test": {"accuracy": 83.0}}
    assert gain_metrics(RESULT, alone, RANKING) == pytest.approx(
        {"result/gain": 4.12, "result/test_gain": 3.123456789}, abs=1e-9
    )
    # 86.74 - 82.62 is 4.11999999999999 in binary, which the column of the table would show.
    assert gain_metrics(RESULT, alone, RANKING)["result/gain"] == 4.12


def test_results_go_by_the_metric_that_ranks():
    result = {
        "validation": {"miou": 40.5, "iou/road": 80.0},
        "test": {"miou": 39.0},
        "teacher": {"validation": {"miou": 60.0}},
    }
    assert result_metrics(result, "miou") == {
        "result/miou": 40.5,
        "result/test_miou": 39.0,
        "result/teacher_miou": 60.0,
    }
    alone = {"validation": {"miou": 38.0}, "test": {"miou": 40.0}}
    assert gain_metrics(result, alone, Ranking("val/miou", "max")) == {"result/gain": 2.5, "result/test_gain": -1.0}


def test_a_gain_of_a_loss_is_positive_where_it_is_better():
    gain = gain_metrics({"validation": {"loss": 0.5}}, {"validation": {"loss": 0.75}}, Ranking("val/loss", "min"))
    assert gain == {"result/gain": 0.25}


@pytest.mark.parametrize(
    ("of_data", "name"),
    [
        ("traffic light", "val/iou/traffic light"),
        ("tench, Tinca", "val/iou/tench_ Tinca"),
        ("wall/floor", "val/iou/wall/floor"),
        ("a//b", "val/iou/a/_/b"),
        ("..", "val/iou/_"),
        ("", "val/iou/_"),
        ("100 %", "val/iou/100 _"),
    ],
)
def test_classes_from_the_data_have_metric_names_that_mlflow_takes(of_data, name):
    assert epoch_metrics({f"val/iou/{of_data}": 1.0}) == {name: 1.0}
    _validate_metric_name(name)


def test_classes_whose_names_become_one_are_numbered():
    report = {"val/ap/a;b": 1.0, "val/ap/a,b": 2.0, "val/ap/a_b": 3.0}
    assert epoch_metrics(report) == {"val/ap/a_b": 1.0, "val/ap/a_b 2": 2.0, "val/ap/a_b 3": 3.0}
