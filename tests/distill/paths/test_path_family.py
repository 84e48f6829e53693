"""What every path must do: each test runs for all of `distill.paths.__all__`, so that a new path is covered too."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from path_cases import Case, batch_of, identity_adapters, make_case, module_of, same_numbers, still_case
from torch import Tensor

from distill import paths
from distill.paths import Path
from distill.taps import OUTPUT

NAMES = sorted(paths.__all__)

SHAPES: dict[str, dict[str, Any]] = {
    "two stages": {},
    "equal shapes": {"student": ((4, 4, 4), (6, 2, 2)), "teacher": ((4, 4, 4), (6, 2, 2))},
    "many channels": {"student": ((3, 3, 3), (2, 2, 2)), "teacher": ((12, 3, 3), (9, 2, 2))},
    "sizes differ": {"student": ((3, 5, 6), (5, 3, 2)), "teacher": ((4, 4, 3), (6, 1, 4))},
    "one position": {"student": ((3, 1, 1),), "teacher": ((4, 1, 1),)},
    "one channel": {"student": ((1, 4, 4),), "teacher": ((1, 4, 4),)},
    "batch of one": {"batch_size": 1},
}

shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
every_path = pytest.mark.parametrize("name", NAMES)


def test_registry_holds_paths_alone() -> None:
    assert all(issubclass(getattr(paths, name), Path) for name in NAMES)


@every_path
def test_golden_values(name: str) -> None:
    tests = module_of(name)
    goldens = getattr(tests, "GOLDENS", {}).get(name)
    assert goldens, f"add hand-derived values of {name}, functions of the class, to GOLDENS in {tests.__name__}.py"
    for golden in goldens:
        golden(getattr(paths, name))


@every_path
def test_docstring_names_its_source(name: str) -> None:
    assert "Source:" in (inspect.getdoc(getattr(paths, name)) or ""), "say which equation of which paper this is"


@every_path
@shapes
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_agrees_with_the_equation_in_plain_loops(name: str, shape: dict[str, Any], training: bool) -> None:
    tests = module_of(name)
    reference = getattr(tests, "reference", None)
    assert reference, f"add reference(path, student, teacher), the equation in loops, to {tests.__name__}.py"
    case = make_case(name, **shape)
    case.path.train(training)
    with same_numbers():
        wanted = reference(case.path, case.student, case.teacher)
    found = case.losses()
    assert list(found) == list(wanted) == list(case.path.layers)
    for layer, loss in found.items():
        assert loss.shape == ()
        assert loss.item() == pytest.approx(wanted[layer], rel=1e-9, abs=1e-15)


SIZE_IS_FIXED = {"LD"}
"""Paths that know from the probe where locations are."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SIZE_IS_FIXED])
def test_larger_images_than_at_connect(name: str) -> None:
    case = make_case(name)
    generator = torch.Generator().manual_seed(1)
    for side in (case.student, case.teacher):
        for tap in [key for key, value in side.items() if value.dim() > 2]:
            batch, channels, *size = side[tap].shape
            larger = [size[0] + 3, size[1] + 1] if len(size) == 2 else [size[0] + 3]  # a map, or locations in a row
            side[tap] = torch.randn(batch, channels, *larger, dtype=torch.float64, generator=generator)
    with same_numbers():
        wanted = module_of(name).reference(case.path, case.student, case.teacher)
    assert {layer: loss.item() for layer, loss in case.losses().items()} == pytest.approx(wanted, rel=1e-9)


@every_path
def test_target_is_computed_sample_by_sample(name: str) -> None:
    case = make_case(name)
    whole = case.target()
    for sample in range(3):
        alone = case.path.target({tap: value[sample : sample + 1] for tap, value in case.teacher.items()})
        for layer, value in alone.items():
            torch.testing.assert_close(whole[layer][sample : sample + 1], value)


NAMES_ITS_SAMPLES = {"CRD", "MGD"}
"""Paths that draw numbers in the order of the samples, or remember them: their own tests look at the order."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NAMES_ITS_SAMPLES])
def test_order_of_the_samples_does_not_count(name: str) -> None:
    case = make_case(name, batch_size=4)
    before, order = case.loss(), torch.tensor([2, 0, 3, 1])
    aligned = Case(case.path, _reorder(case.student, order), _reorder(case.teacher, order))
    torch.testing.assert_close(aligned.loss(), before)
    assert not torch.isclose(Case(case.path, _reorder(case.student, order), case.teacher).loss(), before)


NOT_THE_SLOPE = {"WSLD"}
"""Paths that weigh their loss without gradient, so that it isn't the slope of the value; their own tests look at it."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_THE_SLOPE])
@shapes
def test_gradient_agrees_with_finite_differences(name: str, shape: dict[str, Any]) -> None:
    case = still_case(name, **shape)
    target = case.target()
    taps = list(dict.fromkeys(pair.student for pair in case.path.pairs))

    def loss(*maps: Tensor) -> Tensor:
        with same_numbers():
            losses = case.path(dict(zip(taps, maps, strict=True)), target, batch_of(len(maps[0]), case.path))
        return torch.stack(list(losses.values())).sum()

    inputs = [case.student[tap].requires_grad_() for tap in taps]
    assert torch.autograd.gradcheck(loss, inputs, atol=1e-7, rtol=1e-5, fast_mode=True)  # one random direction


@every_path
def test_teacher_gets_no_gradient_and_everything_learned_does(name: str) -> None:
    case = make_case(name, dtype=torch.float32)
    for side in (case.student, case.teacher):
        for value in side.values():
            value.requires_grad_()
    assert not any(value.requires_grad for value in case.target().values())
    case.loss().backward()
    assert all(value.grad is None for value in case.teacher.values())
    for pair in case.path.pairs:
        gradient = case.student[pair.student].grad
        assert gradient is not None
        assert gradient.abs().sum() > 0
    for parameter_name, parameter in case.learned().items():
        assert parameter.grad is not None, f"{parameter_name} would make DDP wait for a gradient that never comes"
    assert not any(buffer.requires_grad for buffer in case.path.buffers())


@pytest.mark.parametrize("name", [name for name in NAMES if getattr(paths, name).non_negative])
def test_no_loss_below_zero_where_the_path_says_so(name: str) -> None:
    for seed in range(10):
        assert all(loss >= 0 for loss in make_case(name, seed=seed, dtype=torch.float32).losses().values())


@every_path
@pytest.mark.parametrize("shape", ["two stages", "many channels"])
@pytest.mark.parametrize("autocast", [True, False], ids=["inside autocast", "outside autocast"])
def test_bfloat16_activations_are_computed_in_float32(name: str, shape: str, autocast: bool) -> None:
    case = make_case(name, dtype=torch.bfloat16, **SHAPES[shape])
    exact = [{tap: value.double() for tap, value in side.items()} for side in (case.student, case.teacher)]
    with same_numbers():
        wanted = module_of(name).reference(case.path, *exact)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = case.losses()
    for layer, loss in found.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(wanted[layer], rel=2e-5, abs=1e-6)


KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda value: value,
    "zero": torch.zeros_like,
    "constant": lambda value: torch.full_like(value, 3),
    "huge": lambda value: 1e4 * value,
    "tiny": lambda value: 1e-20 * value,
}


@every_path
@pytest.mark.parametrize("student", KINDS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_value_and_gradient_stay_finite(name: str, student: str, precision: str) -> None:
    # Half precision meets the same code behind the same widening: two shapes will do.
    shapes = SHAPES if precision == "float32" else {label: SHAPES[label] for label in ("two stages", "one position")}
    settings = [(shape, teacher, True) for shape in shapes.values() for teacher in KINDS]
    # One value a channel has no variance: BatchNorm refuses to train on it, so that one is for evaluation.
    settings += [({**SHAPES["one position"], "batch_size": 1}, teacher, False) for teacher in KINDS]
    for shape, teacher, training in settings:
        case = make_case(name, dtype=getattr(torch, precision), **shape)
        case.path.train(training)
        case.student = {tap: KINDS[student](value).requires_grad_() for tap, value in case.student.items()}
        case.teacher = {tap: KINDS[teacher](value) for tap, value in case.teacher.items()}
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = case.loss()
        loss.backward()
        assert torch.isfinite(loss), (shape, teacher)
        learned = [case.student[pair.student] for pair in case.path.pairs] + list(case.learned().values())
        assert all(torch.isfinite(value.grad).all() for value in learned), (shape, teacher)


@every_path
def test_channels_last_changes_nothing(name: str) -> None:
    case = still_case(name)
    before = case.loss()
    for side in (case.student, case.teacher):
        maps = {tap: value for tap, value in side.items() if value.dim() == 4}
        side.update({tap: value.to(memory_format=torch.channels_last) for tap, value in maps.items()})
    torch.testing.assert_close(case.loss(), before)


@every_path
def test_state_dict_holds_all_that_was_learned(name: str) -> None:
    trained, fresh = make_case(name, seed=0), make_case(name, seed=1)
    trained.loss()  # BatchNorm's running statistics move
    fresh.student, fresh.teacher = trained.student, trained.teacher
    for buffer_name, buffer in trained.path.named_buffers():  # the teacher's classifier comes from the teacher
        if buffer_name not in trained.path.state_dict():
            fresh.path.register_buffer(buffer_name, buffer, persistent=False)
    fresh.path.load_state_dict(trained.path.state_dict())
    for mode in (True, False):
        assert torch.equal(fresh.path.train(mode) and fresh.loss(), trained.path.train(mode) and trained.loss())


@every_path
def test_reads_only_the_taps_of_its_pairs(name: str) -> None:
    case = still_case(name)
    before = case.loss()
    case.student = {pair.student: case.student[pair.student] for pair in case.path.pairs}
    case.teacher = {pair.teacher: case.teacher[pair.teacher] for pair in case.path.pairs}
    with same_numbers():
        losses = case.path(case.student, case.target(), batch_of(3, case.path))
    torch.testing.assert_close(torch.stack(list(losses.values())).sum(), before)


def _reorder(taps: dict[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    return {tap: value[order] for tap, value in taps.items()}


NOTHING_TO_LEARN = {
    "AttentionTransfer",
    "AttentionTransferNorm",
    "CWD",
    "FSP",
    "FeatureMap",
    "ICKD",
    "IFVD",
    "Logits",
    "NSTGram",
    "NSTPolynomial",
    "OFD",
    "PKD",
    "PKT",
    "PairwiseSimilarity",
    "RKDAngle",
    "RKDDistance",
    "SP",
    "SoftTarget",
}
"""Paths whose loss is zero where student and teacher agree; those of another minimum have a test of their own."""


@pytest.mark.parametrize("name", sorted(NOTHING_TO_LEARN))
@pytest.mark.parametrize("shape", ["equal shapes", "many channels"])
def test_a_student_like_the_teacher_costs_nothing(name: str, shape: str) -> None:
    teacher = SHAPES[shape]["teacher"]
    case = make_case(name, student=teacher, teacher=teacher)
    identity_adapters(case.path)
    for module in case.path.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
            torch.nn.init.zeros_(module.bias)
    case.student = {("s" + tap[1:] if tap else OUTPUT): value for tap, value in case.teacher.items()}
    assert case.loss().item() == pytest.approx(0, abs=1e-14)
