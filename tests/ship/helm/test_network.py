"""The way in and out: routes without time-outs where printers stay, policies, sizes."""

import json
import re

import pytest
import yaml
from chartkit import ALL_SETS, EXAMPLE_SETS, ROOT, VALUE_SETS, files, merged, one, render, with_needed

OPENAPI = json.loads((ROOT / "openapi.json").read_text())


def rules(values=VALUE_SETS["gateway-api"]):
    """Path prefix to time-outs."""
    return {match["path"]["value"]: rule["timeouts"] for route in routes(values) for rule in route["spec"]["rules"] for match in rule["matches"]}


def routes(values):
    found = [thing for thing in render(values) if thing["kind"] == "HTTPRoute"]
    assert len(found) == 2
    return found


def timeouts(path):
    """Of the longest prefix, by whole parts of the path, as gateways match."""
    found = [prefix for prefix in rules() if path == prefix or path.startswith(prefix.rstrip("/") + "/")]
    return rules()[max(found, key=len)]


@pytest.mark.parametrize(
    "path",
    ["/ws/user-1", "/d/abcdef", "/api/events", "/api/firmware/upload", "/api/firmware/uploads/1/complete",
     "/api/firmware/download/1.5.0", "/api/printers/export", "/api/updates/export", "/api/audit/export", "/api/printer-keys/import"],
)
def test_what_takes_long_has_no_time_out(path):
    assert timeouts(path) == {"request": "0s", "backendRequest": "0s"}


@pytest.mark.parametrize("path", ["/", "/api/rollouts", "/api/firmware", "/api/printers/1", "/docs", "/api/printers/exported", "/wsx"])
def test_everything_else_has_one(path):
    assert timeouts(path) == {"request": "30s"}


def test_every_stream_of_the_api_is_among_them():
    def streams(operation):
        return any(
            kind in ("text/event-stream", "text/csv", "application/x-ndjson", "application/octet-stream")
            for answer in operation.get("responses", {}).values() for kind in answer.get("content", {}))

    paths = [path for path, item in OPENAPI["paths"].items() if any(streams(item[verb]) for verb in item if verb in ("get", "post"))]
    assert "/api/events" in paths and len(paths) >= 4
    for path in paths:
        assert timeouts(path)["request"] == "0s", path


def test_paths_of_the_route_exist():
    for prefix in rules():
        assert prefix in ("/", "/ws", "/d") or any(path.startswith(prefix) for path in OPENAPI["paths"]), prefix


def test_the_route_leads_to_the_public_service_alone():
    objects = render(VALUE_SETS["gateway-api"])
    both = [route["spec"] for route in routes(VALUE_SETS["gateway-api"])]
    backends = {(ref["name"], ref["port"]) for route in both for rule in route["rules"] for ref in rule["backendRefs"]}
    service = one(objects, "Service", "ota-paperminder-ota")
    assert backends == {(service["metadata"]["name"], service["spec"]["ports"][0]["port"])}
    for route in both:
        assert route["parentRefs"] == [{"name": "public", "namespace": "gateways", "sectionName": "https"}]


def test_envoy_repeats_for_printers_alone_what_was_answered():
    objects = list(yaml.safe_load_all((ROOT / "helm/examples/envoy-gateway/objects.yaml").read_text()))
    policies = {thing["spec"]["targetRefs"][0]["name"]: thing["spec"] for thing in objects if thing["kind"] == "BackendTrafficPolicy"}
    found = {
        route["metadata"]["name"]: {match["path"]["value"] for rule in route["spec"]["rules"] for match in rule["matches"]}
        for route in routes(EXAMPLE_SETS["envoy-gateway/values"])
    }
    assert set(policies) == set(found)
    for name, paths in found.items():
        retry = policies[name]["retry"]["retryOn"]
        if paths == {"/ws", "/d"}:
            assert retry == {"triggers": ["connect-failure", "retriable-status-codes"], "httpStatusCodes": [503]}
        else:
            assert retry == {"triggers": ["connect-failure"]}, "a POST would be made twice"
    rest = [{key: value for key, value in policy.items() if key not in ("targetRefs", "retry")} for policy in policies.values()]
    assert rest[0] == rest[1]


def test_an_ingress_has_no_annotation_of_its_own():
    ingress = one(render(VALUE_SETS["ingress"]), "Ingress")
    assert "annotations" not in ingress["metadata"]
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == ["ota.example.com", "ota.example.org"]
    assert {path["backend"]["service"]["port"]["name"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]} == {"http"}


@pytest.mark.parametrize("name", ALL_SETS)
def test_no_way_leads_to_the_internal_port(name):
    objects = render(ALL_SETS[name])
    ways = [thing["spec"] for thing in objects if thing["kind"] in ("Ingress", "HTTPRoute")]
    assert "-internal" not in json.dumps(ways) and "9000" not in json.dumps(ways)
    for service in (thing for thing in objects if thing["kind"] == "Service"):
        public = service["spec"]["type"] != "ClusterIP"
        assert not (public and any(port["targetPort"] == "internal" for port in service["spec"]["ports"]))


def test_nothing_is_open_unless_it_is_asked_for():
    kinds = {thing["kind"] for thing in render()}
    assert kinds == {"ConfigMap", "Deployment", "Job", "Pod", "PodDisruptionBudget", "Service", "ServiceAccount"}


def test_scaling_goes_by_sockets_first_and_down_slowly():
    objects = render(VALUE_SETS["autoscaling"])
    spec = one(objects, "HorizontalPodAutoscaler")["spec"]
    sockets, cpu = spec["metrics"]
    assert sockets == {"type": "Pods", "pods": {
        "metric": {"name": "paperminder_printers_connected"}, "target": {"type": "AverageValue", "averageValue": "10000"}}}
    assert cpu["resource"]["target"]["averageUtilization"] == 70
    down = spec["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 1800 and down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 600}]
    # A replica is gone before the next one goes.
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    assert down["policies"][0]["periodSeconds"] > pod["terminationGracePeriodSeconds"]
    # Two hands on one number.
    assert "replicas" not in one(objects, "Deployment")["spec"]
    assert spec["scaleTargetRef"]["name"] == one(objects, "Deployment")["metadata"]["name"]


@pytest.mark.parametrize(("live", "replicas"), [(1, 2), (2, 2), (5, 5), (9, 6), (0, 2)])
def test_an_upgrade_leaves_the_number_that_the_autoscaler_set(live, replicas):
    # No cluster to look into here: the same template, told what there is.
    thing = 'kind: Said\nreplicas: {{ include "paperminder-ota.autoscaledReplicas" (dict "root" . "live" (dict "spec" (dict "replicas" %d))) }}' % live
    values = with_needed({"autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 6}, "extraObjects": [thing]})
    assert one(render(values), "Said")["replicas"] == replicas
    template = (ROOT / "helm/paperminder-ota/templates/deployment.yaml").read_text()
    assert '"live" (lookup "apps/v1" "Deployment" .Release.Namespace (include "paperminder-ota.fullname" .))' in template


def test_the_metric_of_scaling_is_one_of_the_server():
    source = (ROOT / "src" / "telemetry" / "metrics.rs").read_text()
    name = one(render(VALUE_SETS["autoscaling"]), "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert f'"{name}"' in source


def test_cpu_alone_scales_without_an_adapter():
    spec = one(render(merged(VALUE_SETS["autoscaling"], {"autoscaling": {"printersPerReplica": 0}})), "HorizontalPodAutoscaler")["spec"]
    assert [metric["type"] for metric in spec["metrics"]] == ["Resource"]


def test_drains_of_nodes_take_one_replica_at_a_time():
    objects = render()
    spec = one(objects, "PodDisruptionBudget")["spec"]
    assert spec["maxUnavailable"] == 1 and spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert spec["selector"]["matchLabels"] == one(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    percent = one(render(VALUE_SETS["placement"]), "PodDisruptionBudget")["spec"]
    assert percent["maxUnavailable"] == "50%"


def ports(rule):
    return {port["port"] for port in rule["ports"]}


def test_policies_let_in_whom_they_name():
    objects = render(VALUE_SETS["network-policy"])
    public, internal = one(objects, "NetworkPolicy", "ota-paperminder-ota")["spec"]["ingress"]
    assert ports(public) == {"http"} and ports(internal) == {"internal"}
    names = [peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name") for peer in public["from"]]
    assert names == ["gateways", None]
    # The pod of `helm test` comes in, too.
    test = one(objects, "Pod")["metadata"]["labels"]
    assert public["from"][1]["podSelector"]["matchLabels"].items() <= test.items()
    assert [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in internal["from"]] == ["monitoring"]


def test_policies_let_out_to_what_is_configured():
    policy = one(render(VALUE_SETS["network-policy"]), "NetworkPolicy", "ota-paperminder-ota")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    out = policy["egress"]
    assert ports(out[0]) == {53}
    assert ports(out[1]) == {6432} and out[1]["to"] == [{"ipBlock": {"cidr": "10.20.0.0/16"}}]
    assert ports(out[2]) == {443, 4318, 8000}
    assert out[-1]["ports"] == [{"port": 4318, "protocol": "TCP"}]
    # MinIO's port, and plain HTTP's where none is written.
    assert ports(one(render(VALUE_SETS["minio"]), "NetworkPolicy", "ota-paperminder-ota")["spec"]["egress"][2]) == {443, 9000, 8000}
    plain = merged(VALUE_SETS["minio"], {"s3": {"endpoint": "http://minio.storage.svc"}})
    assert ports(one(render(plain), "NetworkPolicy", "ota-paperminder-ota")["spec"]["egress"][2]) == {443, 80, 8000}


def test_policies_let_out_to_what_the_doctor_tries():
    values = merged(VALUE_SETS["network-policy"], {
        "baseUrl": "http://ota.example.com:8081", "s3": {"publicEndpoint": "https://s3.example.com:8082"},
        "delivery": {"mode": "cdn", "cdn": {"baseUrl": "http://cdn.example.com:8083"}}})
    out = one(render(values), "NetworkPolicy", "ota-paperminder-ota")["spec"]["egress"]
    assert {8081, 8082, 8083} <= ports(out[2]) and 8000 not in ports(out[2])


def test_policies_let_out_to_the_agent_of_pod_identity():
    out = one(render(VALUE_SETS["network-policy"]), "NetworkPolicy", "ota-paperminder-ota")["spec"]["egress"]
    agents = [rule for rule in out if rule["ports"] == [{"port": 80, "protocol": "TCP"}]]
    assert [[peer["ipBlock"]["cidr"] for peer in rule["to"]] for rule in agents] == [["169.254.170.23/32", "fd00:ec2::23/128"]]


def test_an_alb_may_ask_for_health_where_policies_are_on():
    objects = render(merged(EXAMPLE_SETS["alb/values"], {"networkPolicy": {"enabled": True}}))
    public, internal = one(objects, "NetworkPolicy", "ota-paperminder-ota")["spec"]["ingress"]
    subnets = {"ipBlock": {"cidr": "10.0.0.0/16"}}
    assert subnets in public["from"] and subnets in internal["from"]
    assert one(objects, "ConfigMap", "paperminder-ota")["data"]["TRUSTED_PROXIES"] == "10.0.0.0/16"

def test_nobody_comes_in_to_jobs():
    objects = render(VALUE_SETS["network-policy"])
    policy = one(objects, "NetworkPolicy", "-jobs")["spec"]
    assert policy["ingress"] == [] and "Ingress" in policy["policyTypes"]
    chosen = policy["podSelector"]["matchExpressions"][0]["values"]
    pods = [one(objects, "Job")["spec"]["template"], one(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]]
    assert {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods} == set(chosen)


def test_notes_say_what_to_do_next():
    text = files()["templates/NOTES.txt"]
    for command in (
        "kubectl -n devices rollout status deployment/ota-paperminder-ota",
        "kubectl -n devices exec deploy/ota-paperminder-ota -- paperminder-ota key create --name me --role admin",
        "kubectl -n devices port-forward service/ota-paperminder-ota 8000:8000",
        "helm -n devices test ota --logs",
    ):
        assert command in text
    assert "65 connections" in text and "114 seconds" in text
    assert text.count("WARNING") == 3
    careful = with_needed({
        "baseUrl": "https://ota.example.com", "trustedProxies": ["10.0.0.0/8"], "database": {"sslMode": "verify-full", "maxConnections": 100}})
    text = files(careful)["templates/NOTES.txt"]
    assert "WARNING" not in text and "wss://ota.example.com/ws/<user_id>" in text
    assert not re.search(r"\n\n\n", text)
    text = files(with_needed({"baseUrl": "http://http.example.com"}))["templates/NOTES.txt"]
    assert "ws://http.example.com/ws/<user_id>" in text
