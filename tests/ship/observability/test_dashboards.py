"""The dashboards as Grafana gets them: loadable, of one style, and bound to no installation."""

import json
import re

import promql_parser
import pytest

from sources import DASHBOARDS, ROOT, expressions, panels, parts, plain, selectors

# Grafana's ids of units: what the panels use of them.
UNITS = {"short", "percentunit", "s", "ops", "reqps"}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@pytest.fixture(params=DASHBOARDS, ids=lambda path: path.stem)
def board(request):
    return json.loads(request.param.read_text())


def test_there_are_dashboards_of_the_fleet_the_rollouts_and_the_replicas():
    assert [path.stem for path in DASHBOARDS] == ["fleet", "replicas", "rollouts"]
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert len({one["uid"] for one in boards}) == len({one["title"] for one in boards}) == 3


def test_grafana_can_take_it_from_a_file(board):
    # Grafana gives ids itself; a dashboard from a file with one is taken for another's.
    assert "id" not in board or board["id"] is None
    assert re.fullmatch(r"[a-z-]{1,40}", board["uid"])
    assert board["schemaVersion"] >= 36 and board["title"] and board["description"]
    assert "__inputs" not in board, "exported for sharing: a provisioned dashboard is never asked for inputs"


def test_panels_have_what_a_reader_needs(board):
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles) >= 8
    for panel in panels(board):
        name = panel["title"]
        assert len(panel["description"]) > 15 and panel["description"].endswith("."), name
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, name
        assert panel["datasource"] == SOURCE, name
        assert panel["targets"], name
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), name
        for target in panel["targets"]:
            assert target["datasource"] == SOURCE, name


def test_panels_do_not_lie_on_each_other(board):
    taken = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                other = taken.setdefault((x, y), panel["title"])
                assert other == panel["title"], f"{panel['title']} lies on {other}"


def test_variables_that_are_used_are_there_and_the_other_way_round(board):
    names = {variable["name"] for variable in board["templating"]["list"]}
    asked = json.dumps([board["panels"], board["annotations"]])
    queries = json.dumps(board["templating"])
    used = {name for name in re.findall(r"\$\{?(\w+)\}?", asked + queries) if not name.startswith("__")}
    assert used == names, used ^ names
    assert board["templating"]["list"][0]["type"] == "datasource"


def test_every_series_is_of_the_chosen_installation(board):
    """Two installations, or another program with OpenTelemetry's names, may be in the same Prometheus."""
    for panel in panels(board):
        for target in panel["targets"]:
            assert plain(target["expr"])
            for metric, matchers in selectors(target["expr"].replace("$__rate_interval", "1m")):
                labels = {label: value for label, _, value in matchers}
                assert labels.get("job") == "$job" and labels.get("namespace") == "$namespace", (panel["title"], metric)


# Every replica shows the same number of these.
SAME = re.compile(r"paperminder_(printers_known|printers_offline|updates_silent|rollouts|rollouts_paused_by_rule|rollout_printers)")


def test_fleet_wide_gauges_are_not_added_up():
    """A sum over replicas would count the fleet once for each."""
    seen = 0
    for where, expression in expressions():
        for node in parts(expression):
            if not isinstance(node, promql_parser.AggregateExpr) or not isinstance(node.expr, promql_parser.VectorSelector):
                continue
            if SAME.fullmatch(node.expr.name):
                seen += 1
                assert str(node.op) in ("max", "group"), f"{where}: {node.prettify()}"
    assert seen > 10


def test_the_links_between_dashboards_find_them(board):
    tags = {tag for link in board["links"] for tag in link["tags"]}
    assert tags and tags <= set(board["tags"])
    assert str(ROOT) not in json.dumps(board)
