"""Walks torchvision's classification models, where slow tests run all of them: each is probed and paired with each."""

import itertools

import pytest
import torch
import torchvision
from tap_samples import STAGES, build, images, same
from torch import nn

from distill.models import CifarResNet18, CifarResNet50, ResNet8, ResNet20
from distill.taps import OUTPUT, TapPair, TapReader, pair_last, pair_named, pair_stages, probe

MODELS = torchvision.models.list_models(module=torchvision.models)

READ = set(STAGES) - {"efficientnet_v2_s", "resnet50", "vgg16_bn", "vit_h_14"}  # one of a family
NO_LINEAR_CLASSIFIER = {"squeezenet1_0", "squeezenet1_1"}
EACH = [name if name in STAGES else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
TOGETHER = [pytest.param(list(STAGES), id="some"), pytest.param(MODELS, id="all", marks=pytest.mark.slow)]


def meta_probe(name, size):
    return probe(build(name), torch.zeros(2, 3, size, size, device="meta"), same)


class Probes(dict):
    """What was found in models, by name; each is probed when it is first asked for."""

    def __missing__(self, name):
        model = build(name)
        self[name] = probe(model, images(name), same)
        if name in READ:
            _assert_reader_agrees(model.eval(), images(name), self[name])
        return self[name]


@pytest.fixture(scope="module")
def probes():
    return Probes()


def _assert_reader_agrees(model, sample, found):
    taps = (*found.stages, found.last)
    taps += tuple(found.before_activation(tap.name) for tap in taps)
    reader = TapReader(model, taps, same)
    _, activations = reader(sample)
    reader.close()
    assert activations[OUTPUT].shape == (2, 1000)
    for tap in taps:
        assert activations[tap.name].shape == (2, tap.channels, tap.height, tap.width)


def test_all_classification_models_are_walked():
    assert len(MODELS) >= 80
    assert set(STAGES) <= set(MODELS)


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_where_the_papers_end_them(probes, name):
    assert [(tap.name, tap.channels, tap.height) for tap in probes[name].stages] == STAGES[name]
    assert all(tap.height == tap.width for tap in probes[name].stages)


@pytest.mark.parametrize("name", EACH)
def test_every_model_has_stages_a_last_feature_and_an_output(probes, name):
    found = probes[name]
    assert len(found.stages) >= 3
    assert [tap.stride for tap in found.stages] == sorted(tap.stride for tap in found.stages)
    assert all(found[tap.name] == tap for tap in (*found.stages, found.last))
    assert (found.last.channels, found.last.height) == (found.stages[-1].channels, found.stages[-1].height)
    assert found.output_shape == (1000,)
    assert found[OUTPUT].channels == 1000
    if name in NO_LINEAR_CLASSIFIER:
        assert found.classifier is None
    else:
        assert found.classifier is not None
        assert found.classifier.out_features == 1000


@pytest.mark.parametrize("name", EACH)
def test_what_enters_the_last_activation_of_every_stage_can_be_read(probes, name):
    found = probes[name]
    for tap in (*found.stages, found.last):
        before = found.before_activation(tap.name)
        assert before.shape == tap.shape
        assert before == tap or (before.entering is not None and found[before.name] == before)


@pytest.mark.parametrize("walked", TOGETHER)
def test_every_model_pairs_with_every_model_in_both_roles(probes, walked):
    for student, teacher in itertools.product([probes[name] for name in walked], repeat=2):
        pairs = pair_stages(student, teacher)
        assert len(pairs) >= 2
        assert len({pair.layer for pair in pairs}) == len(pairs)
        for pair in pairs:
            assert student[pair.student].is_map
            assert teacher[pair.teacher].is_map
        teachers = [teacher.stages.index(teacher[pair.teacher]) for pair in pairs]
        assert teachers == sorted(set(teachers))  # in order of depth, none twice
        (last,) = pair_last(student, teacher)
        assert (last.student, last.teacher, last.layer) == (student.last.name, teacher.last.name, student.last.name)


@pytest.mark.parametrize("walked", TOGETHER)
def test_pyramids_pair_at_equal_strides(probes, walked):
    pyramids = [probes[name] for name in walked if not name.startswith("vit")]
    for student, teacher in itertools.product(pyramids, repeat=2):
        for pair in pair_stages(student, teacher):
            assert student[pair.student].octave == teacher[pair.teacher].octave


def names(pairs):
    return [(pair.student, pair.teacher) for pair in pairs]


def test_resnets_pair_layer_by_layer(probes):
    layers = ["layer1", "layer2", "layer3", "layer4"]
    for one, other in itertools.permutations(("resnet18", "resnet50"), 2):
        pairs = pair_stages(probes[one], probes[other])
        assert pairs == tuple(TapPair(layer, layer, layer) for layer in layers)


def test_resnet_and_mobilenet_pair_at_their_common_strides(probes):
    assert names(pair_stages(probes["mobilenet_v2"], probes["resnet50"])) == [
        ("features.3", "layer1"),
        ("features.6", "layer2"),
        ("features.13", "layer3"),
        ("features", "layer4"),
    ]


def test_isotropic_models_pair_by_relative_depth(probes):
    block = "encoder.layers.encoder_layer_{}".format
    assert names(pair_stages(probes["resnet18"], probes["vit_b_16"])) == [
        ("layer1", block(2)),
        ("layer2", block(5)),
        ("layer3", block(8)),
        ("layer4", block(11)),
    ]
    # Three stages meet four quarters, five stages meet four: evenly spaced, the deepest with the deepest.
    assert names(pair_stages(probes["googlenet"], probes["vit_b_16"])) == [
        ("inception3b", block(5)),
        ("inception4e", block(8)),
        ("inception5b", block(11)),
    ]
    assert names(pair_stages(probes["vit_b_16"], probes["mobilenet_v2"])) == [
        (block(2), "features.3"),
        (block(5), "features.6"),
        (block(8), "features.13"),
        (block(11), "features"),
    ]
    assert names(pair_stages(probes["vit_b_32"], probes["vit_l_16"])) == [
        (block(2), block(5)),
        (block(5), block(11)),
        (block(8), block(17)),
        (block(11), block(23)),
    ]


def test_cifar_resnets_pair_layer_by_layer():
    sample = torch.zeros(2, 3, 32, 32)
    small, large = (probe(model(num_classes=10), sample, same) for model in (CifarResNet18, CifarResNet50))
    for found in (small, large):
        assert [(tap.name, tap.stride) for tap in found.stages] == [
            ("layer1", 1.0),
            ("layer2", 2.0),
            ("layer3", 4.0),
            ("layer4", 8.0),
        ]
    layers = ["layer1", "layer2", "layer3", "layer4"]
    assert pair_stages(small, large) == tuple(TapPair(layer, layer, layer) for layer in layers)
    thin, deep = (probe(model(num_classes=10), sample, same) for model in (ResNet8, ResNet20))
    assert pair_stages(thin, deep) == tuple(TapPair(layer, layer, layer) for layer in layers[:3])


def test_models_without_a_common_stride_pair_by_relative_depth():
    student = probe(ResNet8(num_classes=10), torch.zeros(2, 3, 32, 32), same)  # strides 1, 2, 4
    teacher = meta_probe("resnet18", size=32)  # strides 4, 8, 16; layer4 has a single place
    assert names(pair_stages(student, teacher)) == [("layer1", "layer1"), ("layer2", "layer2"), ("layer3", "layer3")]


def test_small_images_leave_single_places_to_the_last_feature():
    found = meta_probe("resnet18", size=32)
    assert [(tap.name, tap.height) for tap in found.stages] == [("layer1", 8), ("layer2", 4), ("layer3", 2)]
    assert (found.last.name, found.last.channels, found.last.height) == ("layer4", 512, 1)
    assert pair_last(found, found) == (TapPair("layer4", "layer4", "layer4"),)


def test_named_pairs_are_taken_as_named(probes):
    pairs = pair_named(
        probes["resnet18"],
        probes["vit_b_16"],
        [{"student": "layer2.0", "teacher": "encoder"}, {"student": "layer4", "teacher": "encoder"}],
    )
    assert pairs == (TapPair("layer2.0", "encoder", "layer2.0"), TapPair("layer4", "encoder", "layer4"))


def test_a_tap_used_twice_gets_distinct_labels(probes):
    resnet = probes["resnet18"]
    pairs = pair_named(
        resnet,
        resnet,
        [
            {"student": "layer2", "teacher": "layer2"},
            {"student": "layer2", "teacher": "layer3"},
            {"student": "layer3", "teacher": "layer3"},
        ],
    )
    assert [pair.layer for pair in pairs] == ["layer2-layer2", "layer2-layer3", "layer3"]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([{"student": "layer5", "teacher": "layer4"}], r"taps, student: .*no module 'layer5'; nearest names: .*layer4"),
        ([{"student": "layer4", "teacher": "block9"}], r"taps, teacher: .*no module 'block9'; nearest names: "),
        ([{"student": "layer1.0.bn1", "teacher": "layer1"}], r"taps, student: .*'layer1.0.bn1' .*overwritten in place"),
        ([{"student": "layer1", "teacher": "layer1.0.relu"}], r"taps, teacher: .*'layer1.0.relu' .*runs 2 times"),
        ([{"student": "layer4", "teacher": "avgpool"}], r"'layer4' is 512x7x7 .*'avgpool' is 512x1x1"),
        ([{"student": OUTPUT, "teacher": "layer1"}], r"the student's tap is empty"),
        ([{"student": "layer1"}], r"a pair is \{student: NAME, teacher: NAME\}, found \{'student': 'layer1'\}"),
        ([{"student": "layer1", "teacher": 3}], r"a pair is"),
        (["layer1"], r"a pair is .*found 'layer1'"),
        ([{"student": "layer1", "teacher": "layer1"}] * 2, r"'layer1' with teacher 'layer1' is listed 2 times"),
        ([], r"must be auto or a list"),
        ("layer1", r"must be auto or a list of pairs .*found 'layer1'"),
    ],
)
def test_wrong_pairs_are_refused_by_name(probes, pairs, message):
    with pytest.raises(ValueError, match=message):
        pair_named(probes["resnet18"], probes["resnet18"], pairs)


def test_models_without_maps_do_not_pair_by_stage(probes):
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5))
    found = probe(mlp, torch.zeros(2, 3, 2, 2), same)
    with pytest.raises(ValueError, match="no module of the student returns a map"):
        pair_stages(found, probes["resnet18"])
    with pytest.raises(ValueError, match="no module of the teacher returns a map"):
        pair_stages(probes["resnet18"], found)
    assert names(pair_last(found, probes["resnet18"])) == [("2", "layer4")]


def test_a_model_of_one_layer_has_no_last_feature():
    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(12, 5)

        def forward(self, images):
            return self.fc(images.flatten(1))

    found = probe(Linear(), torch.zeros(2, 3, 2, 2), same)
    with pytest.raises(ValueError, match="no module of the student returns a feature"):
        pair_last(found, found)
