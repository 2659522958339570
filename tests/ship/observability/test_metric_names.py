"""No rule and no dashboard names what the server's /metrics does not have; asked of a real server and a real Prometheus."""

import re
import urllib.error
import urllib.request

import pytest

from live import until
from sources import DASHBOARDS, ROOT, alerts, dashboard_expressions, expressions, grouped, selectors

# What Prometheus adds to every series of a target, and what the operator's set-up may.
TARGET = {"job", "instance", "namespace", "pod"}
# Series of Prometheus' own.
OWN = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}


def parse(text):
    """{metric: {label: {values}}} of Prometheus' text format."""
    known = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, labels = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? \S+", line).groups()
        found = known.setdefault(name, {})
        for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels or ""):
            found.setdefault(label, set()).add(value)
    return known


METRICS = (ROOT / "src/telemetry/metrics.rs").read_text()
# The figures of the fleet explain themselves.
FIGURES = (ROOT / "src/stats/figures.rs").read_text()


def described():
    """What the server says it counts."""
    return set(re.findall(r'describe_\w+!\(\s*"(\w+)"', METRICS)) | set(re.findall(r'"(paperminder_\w+)"', FIGURES))


def rare():
    """Those that appear with an event that no test can bring about in a healthy server, with the labels they get then."""
    found = {}
    for name, labels in re.findall(r'(?:counter|gauge)!\(\s*"(\w+)"([^)]*)\)', METRICS):
        if name in described():
            found.setdefault(name, {}).update({label: set() for label in re.findall(r'"(\w+)" =>', labels)})
    return found


@pytest.fixture(scope="module")
def known(server):
    # The fleet is counted every half minute, so these tests come last.
    line = re.compile(r'^paperminder_rollout_printers\{rollout="1",.*\bstatus="confirmed".*\} 4$', re.M)
    until("figures of the rollout", lambda: line.search(server.metrics()))
    own = {metric: {label: set() for label in labels} for metric, labels in OWN.items()}
    return own | rare() | parse(server.metrics())


def literals(metric):
    """Words in quotes of the sources that count in this metric: its label's values that no event here made appear."""
    words = set()
    function = {
        "paperminder_connections_refused_total": "metrics::refused",
        "paperminder_updates_total": "metrics::ended",
        "paperminder_garbage_turns_total": "metrics::garbage_turn",
    }.get(metric)
    for path in (ROOT / "src").rglob("*.rs"):
        text = path.read_text()
        if function and function in text:
            words |= set(re.findall(r'"([a-z_0-9]+)"', text))
    if metric == "paperminder_updates_total":
        words |= set(re.findall(r'=> "(\w+)"', (ROOT / "src/updates/types.rs").read_text()))
        words |= {word.lower() for word in re.findall(r'"(\w+)"', (ROOT / "src/updates/types.rs").read_text())}
    return words


def unknown(known, metric, label, operator, value):
    """What is wrong with one matcher, or None."""
    values = known[metric].get(label)
    if label in TARGET or metric in OWN:
        return None
    if values is None:
        return f"{metric} has no label {label}"
    if value == ".*":
        return None
    if label == "rollout_status":
        values = values | known["paperminder_rollouts"]["status"]
    # A code that no request here was answered with is a code all the same, and a route has wildcards.
    if metric.startswith("http_server_") and label in ("status", "route"):
        possible = values | ({"500", "503"} if label == "status" else {"/ws/{user_id}", "/api/events"})
        if operator in ("=~", "!~"):
            fits = [any(re.fullmatch(word, one) for one in possible) for word in value.split("|")]
            return None if all(fits) else f"{metric} never has {label}{operator}{value}"
    words = value.split("|") if operator in ("=~", "!~") else [value]
    missing = [word for word in words if word not in values and word not in literals(metric)]
    return f"{metric} never has {label}={missing}" if missing else None


def test_prometheus_3_takes_the_answer(server):
    """Unlike the one here it refuses what does not say that it is text."""
    with urllib.request.urlopen(server.internal + "/metrics", timeout=10) as answer:
        assert answer.headers.get_content_type() == "text/plain"


def test_prometheus_evaluates_every_rule(prometheus):
    rules = {rule["name"]: rule for group in prometheus("rules")["groups"] for rule in group["rules"]}
    assert set(rules) == {rule["alert"] for _, rule in alerts()}
    sick = {name: rule.get("lastError") for name, rule in rules.items() if rule["health"] != "ok"}
    assert not sick


def test_a_healthy_server_raises_no_alert_but_the_rollout_that_fails(prometheus):
    firing = {one["labels"]["alertname"] for one in prometheus("alerts")["alerts"] if one["state"] == "firing"}
    # Two printers fell back twice each, on purpose.
    assert firing <= {"PaperMinderRollbacks"}, firing


def test_prometheus_answers_every_panel(prometheus):
    for where, expression in dashboard_expressions():
        try:
            prometheus("query", query=expression)
        except urllib.error.HTTPError as refused:
            with refused:
                raise AssertionError(f"{where}: {refused.read().decode()}") from None


# These must have something to show for a server that just did all of it; the others need minutes or trouble.
SHOWN = [
    "fleet.json: Connected", "fleet.json: Connected printers, by replica", "fleet.json: Refused, by reason",
    "fleet.json: Attempts that ended", "rollouts.json: Offers", "replicas.json: Sockets, by replica",
    "replicas.json: Latency", "replicas.json: Time of a batch of claims", "replicas.json: Writes in one batch",
    "replicas.json: Pool: connections, by state", "replicas.json: Garbage collection", "replicas.json: p95, by route",
]


def test_panels_show_something(prometheus):
    for panel in SHOWN:
        asked = [expression for where, expression in dashboard_expressions() if where == panel]
        assert asked, f"{panel} is not there"
        assert any(prometheus("query", query=expression)["result"] for expression in asked), f"{panel} is empty: {asked}"


def test_every_name_is_one_of_the_server(known):
    wrong = []
    for where, expression in expressions():
        asked = list(selectors(expression))
        assert asked, f"{where} asks for nothing"
        for metric, matchers in asked:
            if metric not in known:
                wrong.append(f"{where}: /metrics has no {metric}")
                continue
            faults = [unknown(known, metric, *matcher) for matcher in matchers]
            wrong += [f"{where}: {fault}" for fault in faults if fault]
    assert not wrong


def test_every_label_that_is_grouped_by_is_there(known):
    wrong = []
    for where, expression in expressions():
        for labels, node in grouped(expression):
            there = TARGET.union(*(known.get(metric, {}) for metric, _ in selectors(node)))
            if not set(labels) <= there:
                wrong.append(f"{where}: {set(labels) - there} is no label of what is grouped")
    assert not wrong


def test_every_metric_of_the_server_is_on_a_dashboard_or_in_a_rule():
    assert DASHBOARDS
    asked = {metric for _, expression in expressions() for metric, _ in selectors(expression)}
    bare = {re.sub(r"_(bucket|sum|count)$", "", metric) for metric in asked} | asked
    assert described() and described() <= bare, described() - bare
