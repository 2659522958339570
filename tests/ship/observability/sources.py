"""Where alerts and dashboards lie, and what they ask Prometheus."""

import json
import pathlib

import promql_parser
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
ALERTS = ROOT / "helm/paperminder-ota/files/alerts.yaml"
DASHBOARDS = sorted((ROOT / "helm/paperminder-ota/files/dashboards").glob("*.json"))
RUNBOOKS = ROOT / "docs/runbooks"

# What Grafana puts in, when everything is selected.
GRAFANA = {"$__rate_interval": "1m", "$__range": "1h", "$namespace": ".*", "$job": ".*", "$instance": ".*", "$rollout": ".*"}

OPERATORS = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}


def alerts():
    """All rules, as (group, rule)."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [(group["name"], rule) for group in groups for rule in group["rules"]]


def panels(board):
    """All panels of a dashboard that show something, also those in closed rows."""
    for panel in board["panels"]:
        yield from (inner for inner in panel.get("panels", []))
        if panel["type"] != "row":
            yield panel


def plain(expression):
    """An expression of a dashboard as Prometheus gets it."""
    for variable, value in GRAFANA.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, f"an unknown variable is left in {expression}"
    return expression


def dashboard_expressions():
    """Everything that a dashboard asks, as (where, expression)."""
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in panels(board):
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", plain(target["expr"])
        for note in board["annotations"]["list"]:
            if "expr" in note:
                yield f"{path.name}: annotation {note['name']}", plain(note["expr"])
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                # label_values(selector, label)
                selector, label = variable["query"]["query"].removeprefix("label_values(").removesuffix(")").rsplit(",", 1)
                yield f"{path.name}: variable {variable['name']}", f"group by ({label.strip()}) ({plain(selector)})"


def expressions():
    """Everything that is asked, by rules and by dashboards."""
    yield from ((rule["alert"], rule["expr"]) for _, rule in alerts())
    yield from dashboard_expressions()


def parts(expression):
    """The expression's tree, node by node."""
    node = promql_parser.parse(expression) if isinstance(expression, str) else expression
    yield node
    for name in ("lhs", "rhs", "expr", "param", "vector_selector"):
        child = getattr(node, name, None)
        if child is not None and type(child).__module__.startswith(("promql_parser", "builtins")) and hasattr(child, "prettify"):
            yield from parts(child)
    for child in getattr(node, "args", None) or []:
        yield from parts(child)


def selectors(expression):
    """(metric, [(label, operator, value)]) of each series that is asked for."""
    for node in parts(expression):
        if isinstance(node, promql_parser.VectorSelector):
            matchers = [(one.name, OPERATORS[str(one.op)], one.value) for one in node.matchers.matchers]
            yield node.name, matchers


def grouped(expression):
    """The labels of each `by`, `on`, `ignoring` and `without`, with the part of the tree that they are about."""
    for node in parts(expression):
        modifier = getattr(node, "modifier", None)
        if modifier is None:
            continue
        labels = modifier if hasattr(modifier, "labels") else modifier.matching
        if labels is not None:
            yield list(labels.labels), node
