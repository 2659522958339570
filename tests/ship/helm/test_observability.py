"""Alerts and dashboards: the chart's files, whole, with the operator's labels and runbooks."""

import json

import pytest
import yaml
from chartkit import CHART, VALUE_SETS, merged, one, render

ALERTS = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
DASHBOARDS = sorted(CHART.glob("files/dashboards/*.json"))
SET = VALUE_SETS["observability"]
PREFIX = "https://github.com/paperminder/ota/blob/main/docs/runbooks/"


def rules(groups):
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def made(**values):
    return rules(one(render(merged(SET, {"prometheusRule": values})), "PrometheusRule")["spec"]["groups"])


def test_every_alert_arrives_as_it_was_written():
    values = merged(VALUE_SETS["minimal"], {"prometheusRule": {"enabled": True}})
    spec = one(render(values), "PrometheusRule")["spec"]
    assert spec["groups"] == ALERTS and len(rules(ALERTS)) >= 9
    assert all(rule["annotations"]["runbook_url"].startswith(PREFIX) for rule in rules(ALERTS).values())


def test_alerts_get_labels_and_runbooks_of_one_s_own():
    for name, rule in made().items():
        assert rule["labels"]["team"] == "devices" and rule["labels"]["severity"] == rules(ALERTS)[name]["labels"]["severity"]
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example.com/ota/{name}.md"
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_alerts_can_be_left_out():
    names = list(rules(ALERTS))
    assert list(made(disabled=names[:2])) == names[2:]
    everything = [rule for group in ALERTS for rule in group["rules"][:1]]
    assert everything, "a group without rules is none"


def test_a_group_whose_alerts_are_all_left_out_is_gone():
    first = [rule["alert"] for rule in ALERTS[0]["rules"]]
    groups = one(render(merged(SET, {"prometheusRule": {"disabled": first}})), "PrometheusRule")["spec"]["groups"]
    assert [group["name"] for group in groups] == [group["name"] for group in ALERTS[1:]]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_arrive_whole(path):
    found = one(render(SET), "ConfigMap", f"-dashboard-{path.stem}")
    assert json.loads(found["data"][path.name]) == json.loads(path.read_text())
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"] == {"grafana_folder": "OTA"} and found["metadata"]["namespace"] == "grafana"
    # What an object may hold.
    assert len(json.dumps(found)) < 1_000_000


def test_there_are_dashboards():
    assert len(DASHBOARDS) >= 2
    assert len([thing for thing in render(SET) if "-dashboard-" in thing["metadata"]["name"]]) == len(DASHBOARDS)


def test_prometheus_scrapes_each_replica_at_the_internal_port():
    objects = render(SET)
    monitor = one(objects, "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    endpoint = monitor["spec"]["endpoints"][0]
    assert (endpoint["port"], endpoint["path"], endpoint["interval"]) == ("internal", "/metrics", "15s")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    chosen = [thing for thing in objects if thing["kind"] == "Service" and wanted <= thing["metadata"]["labels"].items()]
    assert [thing["metadata"]["name"] for thing in chosen] == ["ota-paperminder-ota-internal"]
    assert endpoint["port"] in [port["name"] for port in chosen[0]["spec"]["ports"]]
    # A replica that is not ready is the one whose figures are wanted.
    assert chosen[0]["spec"]["publishNotReadyAddresses"] is True


def test_traces_name_their_pod():
    objects = render(SET)
    config = one(objects, "ConfigMap", "ota-paperminder-ota")["data"]
    assert config["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.observability.svc:4318"
    env = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["env"]
    names = [entry["name"] for entry in env]
    # A variable is put into those after it.
    assert names.index("POD_NAME") < names.index("OTEL_RESOURCE_ATTRIBUTES")
    assert "$(POD_NAME)" in env[names.index("OTEL_RESOURCE_ATTRIBUTES")]["value"]
