"""What the other tests stand on."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_requirements_are_pinned_and_sorted():
    lines = [
        line
        for line in (ROOT / "tests/ship/requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+(; .+)?", line) for line in lines), lines
    names = [line.split("==")[0].lower().replace("_", "-") for line in lines]
    assert names == sorted(names)
