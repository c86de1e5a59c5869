"""The demo's page: it says what the numbers say, and needs nothing from outside."""

from __future__ import annotations

import base64
import io
import math
import re

import numpy as np
import pytest
from browser import faults
from html_page import Page
from PIL import Image

from report import (
    Command,
    Comparison,
    Curve,
    Detections,
    ReportData,
    Run,
    Sample,
    count_found,
    render,
)

COMMAND = 'python tools/x.py A \'[{"NAME": "a & <b>"}]\' > "log"'


def runs(*box_ap):
    return [
        Run(
            seed,
            {"bbox/AP": value, "bbox/AP50": value + 20, "segm/AP": value - 2},
            Curve([50, 100], [value / 2, value]),
        )
        for seed, value in enumerate(box_ap)
    ]


def objects(scores=None):
    masks = np.zeros((2, 24, 24), bool)
    masks[0, 2:9, 2:9] = masks[1, 12:20, 10:22] = True
    return Detections(np.array([[2, 2, 9, 9], [10, 12, 22, 20]]), [0, 1], scores, masks)


@pytest.fixture
def data():
    picture = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    return ReportData(
        random=runs(18.0, 19.5, 17.0),
        pretrained=runs(27.5, 29.0, 28.7),
        loss=Curve(range(10, 110, 10), [2 - i / 10 for i in range(10)]),
        knn=Curve([0, 50, 100], [31, 55, 76.4]),
        chance=50,
        spectrum_before=[4, 3, 2, 1],
        spectrum_after=[1, 1, 1, 0],
        conversion={"res2": 1.5e-15, "res5": 3.21e-12},
        conversion_tolerance=1e-9,
        samples=[Sample(picture, objects(), objects([0.1, 0.2]), objects([0.9, 0.8]))],
        class_names=["fish", "<star>"],
        unlabelled=[Image.fromarray(picture)] * 2,
        labelled=[(picture, objects())],
        counts={"unlabelled images": 3000},
        commands=[Command("try it", COMMAND, 80.0), Command("again", "make demo")],
        environment={"torch": "2.15.0"},
    )


def text_of(html):
    body = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.S)
    return re.sub(r"[ \n\u00a0]+", " ", re.sub(r"<[^>]*>", "", body))


def test_the_page_is_whole_and_asks_nothing_of_the_network(data):
    html = render(data)
    page = Page(html)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", html.split("</head>")[0] + text_of(html))
    assert page.resources
    assert all(resource.startswith(("data:image/jpeg;base64,", "#")) for resource in page.resources)
    for image in page.images:
        assert image["alt"]
        with Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))) as picture:
            assert picture.size == (int(image["width"]), int(image["height"]))
    assert len(page.images) == 3 + 2 + 1
    assert len(page.labels) == html.count("<svg") == 5 and all(page.labels)


@pytest.mark.slow
def test_the_page_fits_every_window(data, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(render(data))
    assert faults(path) == []


def test_the_tables_hold_the_numbers_given(data):
    rows = Page(render(data)).rows
    # By hand: means 18.1667 and 28.4, sample deviations 1.2583 and 0.7937, largest range 2.5.
    assert ["Box AP", "18.2 ± 1.3", "28.4 ± 0.8", "+10.2", "2.5", "yes"] in rows
    assert ["Mask AP", "16.2 ± 1.3", "26.4 ± 0.8", "+10.2", "2.5", "yes"] in rows
    assert ["seed 1", "19.5", "39.5", "17.5"] in rows and ["seed 2", "28.7", "48.7", "26.7"] in rows
    assert not any("Box AP75" in row for row in rows), "a metric that no run has"


def test_a_clear_win_is_said_with_its_margin(data):
    html = render(data)
    assert Page(html).texts["h1"] == ["Pretraining without labels helped this detector"]
    text = text_of(html)
    assert "margin of +10.2 points is larger than the spread between seeds, 2.5 points" in text
    assert "from 31.0 % with random weights to 76.4" in text
    assert "largest relative difference is 3.2 × 10⁻¹², within the 1.0 × 10⁻⁹ allowed" in text
    assert "1 min 20 s" in text and "3,000" in text


def test_a_margin_within_the_spread_is_no_benefit(data):
    html = render(data._replace(pretrained=runs(18.5, 20.5, 19.0)))
    assert Page(html).texts["h1"] == ["Pretraining did not clearly help this detector"]
    text = text_of(html)
    assert "Pretraining does not change box AP by more than the spread between seeds" in text
    assert "The margin of +1.2 points is within the spread of 2.5 points" in text
    assert "lifted" not in text and "helped" not in text
    assert ["Box AP", "18.2 ± 1.3", "19.3 ± 1.0", "+1.2", "2.5", "no"] in Page(html).rows


def test_a_loss_is_called_a_loss(data):
    html = render(data._replace(random=data.pretrained, pretrained=data.random))
    assert Page(html).texts["h1"] == ["Pretraining hurt this detector"]
    assert "Pretraining lowered box AP from 28.4 ± 0.8 to 18.2 ± 1.3" in text_of(html)
    assert "worse" in next(row for row in Page(html).rows if row[0] == "Box AP")


def test_one_seed_is_no_result(data):
    text = text_of(render(data._replace(random=data.random[:1], pretrained=data.pretrained[:1])))
    assert "no verdict from these runs" in text and "an observation, not a result" in text


@pytest.mark.parametrize(
    ("random", "pretrained", "verdict"),
    [
        ((10.0, 12.0), (13.0, 14.5), "wins"),
        ((10.0, 12.0), (13.0, 13.0), "undecided"),  # a margin of exactly the spread
        ((13.0, 14.5), (10.0, 12.0), "loses"),
        ((10.0,), (30.0, 31.0), "unknown"),
        ((10.0, math.nan), (30.0, 31.0), "unknown"),
        ((), (), "unknown"),
    ],
)
def test_the_verdict_follows_from_margin_and_spread(random, pretrained, verdict):
    assert Comparison(random, pretrained).verdict == verdict


def test_a_failed_conversion_is_not_hidden(data):
    text = text_of(render(data._replace(conversion={"res5": 0.5})))
    assert "is not within the 1.0 × 10⁻⁹ allowed: do not trust the fine-tuning above" in text


def test_names_and_commands_come_out_as_given(data):
    page = Page(render(data))
    assert page.texts["pre"] == [COMMAND, "make demo"]
    assert "<star>" in "".join(page.texts["p"])


def test_a_page_without_records_says_so(data):
    html = render(
        data._replace(
            loss=Curve(),
            knn=Curve(),
            samples=[],
            spectrum_before=[],
            spectrum_after=[],
            commands=[],
            conversion={},
        )
    )
    Page(html)
    assert html.count("No values were recorded for this chart.") == 3
    assert "No sample predictions were recorded." in html
    assert "nan" not in text_of(html).lower()


def test_a_sample_counts_what_was_found(data):
    text = text_of(render(data))
    assert "Random weights0 of 2 found" in text, "scores under the threshold do not count"
    assert "Pretrained2 of 2 found" in text


def test_a_detection_is_used_once_and_needs_its_class_and_place():
    truth = Detections(np.array([[0, 0, 10, 10], [0, 0, 10, 9]]), [0, 0])
    one = Detections(np.array([[0, 0, 10, 10]]), [0], [0.9])
    assert count_found(truth, one) == 1
    assert count_found(truth, one._replace(classes=[1])) == 0
    assert count_found(truth, one._replace(boxes=np.array([[6, 0, 16, 10]]))) == 0
    assert count_found(truth, Detections(np.zeros((0, 4)), [], [])) == 0


def test_an_iteration_measured_again_after_a_resume_counts_once(data):
    again = data.random[0]._replace(box_ap=Curve([50, 50, 100], [1.0, 9.0, 18.0]))
    resumed = render(data._replace(random=[again, *data.random[1:]]))
    assert resumed == render(data)
