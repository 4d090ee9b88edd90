"""What the guided run shows and writes."""

import json
from io import StringIO

import pytest
from rich.console import Console

from demo import screen as screen_module
from demo.screen import Screen
from demo.summary import Round, Summary, table_of

ROW = Round(round=1, labels=14, ap50=0.25, ap30=None, correction_iou=None, acquired=12, random=4, seconds=61.5)


def lines(terminal: bool) -> tuple[Screen, StringIO]:
    out = StringIO()
    return Screen(Console(file=out, force_terminal=terminal, width=200, highlight=False)), out


@pytest.mark.parametrize("terminal", [True, False])
def test_a_step_ends_with_its_last_message(terminal):
    screen, out = lines(terminal)
    with screen.step("Training") as report:
        report(0.5, "iteration 50")
        report(1.0, "AP50 [0.4]")
    assert "✓ Training: AP50 [0.4], 0 s" in out.getvalue()


def test_without_a_terminal_progress_is_told_now_and_then(monkeypatch):
    monkeypatch.setattr(screen_module, "QUIET_SECONDS", -1.0)
    screen, out = lines(False)
    with screen.step("Training") as report:
        for fraction in (0.25, 0.25, 0.5):
            report(fraction, "working")
    assert out.getvalue().count("working") == 2 + 1  # each new fraction once, and the end


def test_a_step_that_fails_is_not_ticked_off():
    screen, out = lines(False)
    with pytest.raises(RuntimeError), screen.step("Training"):
        raise RuntimeError("no")
    assert "✓" not in out.getvalue()


def test_summary_has_the_agreed_shape(tmp_path):
    urls = {"thawloop": "http://127.0.0.1:8000"}
    Summary(12.3, [ROW], "var/releases/1", "demo-v1", urls).write(tmp_path / "summary.json")
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found == {
        "seconds": 12.3,
        "rounds": [
            {
                "round": 1,
                "labels": 14,
                "ap50": 0.25,
                "ap30": None,
                "correction_iou": None,
                "acquired": 12,
                "random": 4,
                "seconds": 61.5,
            }
        ],
        "release": "var/releases/1",
        "model_version": "demo-v1",
        "urls": urls,
    }
    assert list(tmp_path.iterdir()) == [tmp_path / "summary.json"]


def test_table_shows_what_could_not_be_measured_as_a_dash():
    out = StringIO()
    Console(file=out, width=120).print(table_of([vars(ROW)]))
    row = next(line for line in out.getvalue().splitlines() if "0.250" in line)
    assert "12 + 4" in row
    assert row.count(" - ") == 2
