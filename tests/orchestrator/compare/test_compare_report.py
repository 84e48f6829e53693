"""The page and the pictures: self-contained, small, the same numbers, readable without sight or script."""

import itertools
import json
import re
import struct
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from orchestrator.compare import compare
from orchestrator.compare.pictures import ForestRow, _limits


@pytest.fixture(scope="module")
def answer(sweep_type, tmp_path_factory):
    sweep = sweep_type(tmp_path_factory.mktemp("outputs") / "digits")
    sweep.details["teacher_label"] = "ResNet<20>"
    for seed in range(3):
        wobble = (0.1, -0.1, 0.02)[seed]
        sweep.add("none", "", seed, 80.0 + wobble)
        for number, label in enumerate(("equal", "adaptive")):
            for position, (names, value) in enumerate({"good": 82.0, "bad": 78.0, "bad+good": 80.4}.items()):
                noise = (0.05, -0.1, 0.03, 0.08)[(seed * position + number) % 4]
                sweep.add(label, names, seed, value + noise)
    sweep.add("logsum", "good", 0, None, status="failed", reason="loss <inf>")
    sweep.add("logsum", "bad", 0, 70.0, status="stopped", epochs=3)
    return compare(sweep.save())


class _Page(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.text, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def files(answer, tmp_path_factory):
    return answer.write(tmp_path_factory.mktemp("report") / "compare")


@pytest.fixture(scope="module")
def page(files):
    return files["report"].read_text(encoding="utf-8")


def test_the_page_is_closed_to_the_outside(page):
    parsed = _Page(page)
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "link", "iframe", "img", "a", "form", "object", "base"}
    policies = [attrs["content"] for tag, attrs in parsed.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none';")
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    assert not re.search(r"(?:src|href)=\"(?!#)", page)


def test_every_picture_has_words_and_ids_of_its_own(page):
    parsed = _Page(page)
    pictures = [attrs for tag, attrs in parsed.tags if tag == "svg"]
    assert len(pictures) == 4
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 20 for attrs in pictures)
    assert re.search(r": good \+2\.\d\d helps; bad -1\.\d\d hurts\.", pictures[0]["aria-label"])
    assert len(parsed.ids) == len(set(parsed.ids))
    references = set(re.findall(r'(?:url\(#|href="#)([^")]+)', page))
    assert references <= set(parsed.ids)


def test_the_text_of_pictures_is_text(page):
    text = " ".join(_Page(page).text)
    for words in ("Effect of adding one path", "Aggregators against Equal", "Difference to the student alone"):
        assert words in text


def test_the_page_tells_the_whole_story(answer, page):
    text = re.sub(r"\s+", " ", " ".join(_Page(page).text))
    for sentence in answer.sentences:
        assert sentence.replace("+-", "±") in text
    assert "ResNet<20>" in text
    assert "<20>" not in page
    assert "logsum/good: seed 0 failed: loss <inf>" in text
    assert "seed 0 stopped by the scheduler after epoch 3" in text
    assert "distillery sweep digits.yaml" in text
    assert "Noise of one run" in text
    for summary in answer.arms:
        for run in summary.runs.finished:
            assert run.run_id in text


def test_page_and_json_say_the_same(page, files):
    numbers = json.loads(files["numbers"].read_text())
    cells = re.sub(r"<[^>]+>", " ", page)
    for arm in numbers["arms"]:
        assert f"{arm['mean']:.2f} &plusmn; {arm['sd']:.2f}" in cells
    for path in numbers["paths"]:
        effect = path["effect"]
        assert f"{effect['difference']:+.2f} [{effect['low']:+.2f},&nbsp;{effect['high']:+.2f}]" in cells


def test_cards_are_square_pictures(files):
    for key in ("compare/path_effect", "compare/aggregators"):
        head = files[key].read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", head[16:24])
        assert width == height >= 800


def test_the_letters_of_a_card_are_large(answer):
    from matplotlib.text import Text

    from orchestrator.compare.pictures import path_card

    figure = path_card(answer)
    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert min(sizes) >= 16
    assert figure.get_size_inches().tolist() == [8.0, 8.0]


def test_a_large_sweep_stays_small(sweep, tmp_path):
    names = ["attention", "feature_map", "logits", "nst", "soft_target"]
    sets = ["+".join(chosen) for size in range(1, 6) for chosen in itertools.combinations(names, size)]
    for seed in range(3):
        sweep.add("none", "", seed, 80.0 + 0.1 * seed)
        for number, label in enumerate(("equal", "adaptive", "adaptive_layerwise", "logsum", "hand_tuned")):
            for position, chosen in enumerate(sets):
                sweep.add(label, chosen, seed, 81 + 0.2 * number + 0.3 * ((7 * position + 3 * seed) % 5) + 0.1 * seed)
    answer = compare(sweep.save())
    assert len(answer.arms) == 156
    assert answer.write(tmp_path)["report"].stat().st_size <= 300 * 1024


def test_the_same_sweep_gives_the_same_page(answer, page, tmp_path):
    assert answer.write(tmp_path)["report"].read_text(encoding="utf-8") == page


def test_a_sweep_without_equal_has_no_picture_of_aggregators(sweep, tmp_path):
    for seed in range(2):
        sweep.add("none", "", seed, 80.0 + seed)
        sweep.add("adaptive", "a", seed, 81.0 + 1.1 * seed)
    files = compare(sweep.save()).write(tmp_path)
    assert "compare/aggregators" not in files
    assert files["compare/path_effect"].is_file()


def test_a_collapsed_arm_does_not_flatten_the_map(sweep):
    from orchestrator.compare.charts import cost, heatmap

    for seed in range(3):
        sweep.add("none", "", seed, 80.0 + 0.1 * seed)
        for number, label in enumerate(("equal", "adaptive", "logsum")):
            for position, names in enumerate(("a", "b", "c", "a+b", "a+b+c")):
                sweep.add(label, names, seed, 80.5 + 0.1 * number + 0.2 * position + 0.1 * seed)
        sweep.add("logsum", "b+c", seed, 10.0)
    answer = compare(sweep.save())
    (mesh,) = heatmap(answer).axes[0].collections
    low, high = mesh.norm.vmin, mesh.norm.vmax
    assert high == -low  # the student alone is white
    assert 1.0 < high < 3.0
    assert cost(answer).axes[0].get_ylim()[0] > 70


def test_a_few_effects_are_all_drawn_whole():
    """Two opposite effects of the quickstart: their intervals once lay outside an axis from 0 to 0.3."""
    rows = [_row("soft_target", 1.6, 0.29, 2.91), _row("attention", -1.32, -2.63, -0.01)]
    low, high = _limits(rows)
    assert low < -2.63
    assert high > 2.91


def test_of_many_effects_a_collapse_is_put_out_of_sight():
    rows = [_row(str(place), place / 10, place / 10 - 1, place / 10 + 1) for place in range(6)]
    low, high = _limits([*rows, _row("collapsed", -60.0, -70.0, -50.0)])
    assert -2 < low < -1
    assert 1 < high < 2


def _row(label: str, middle: float, low: float, high: float) -> ForestRow:
    return ForestRow(label, SimpleNamespace(difference=middle, interval=(low, high)), "undecided")
