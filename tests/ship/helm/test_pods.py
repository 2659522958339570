"""How pods run: as nobody, probed, with time to end."""

import pytest
from chartkit import ALL_SETS, CHART, VALUE_SETS, containers, load, merged, one, pod_specs, render, with_needed

RUNNING = [(name, owner, spec) for name, values in ALL_SETS.items() for owner, spec in pod_specs(render(values))]
IDS = [f"{name}-{owner['kind']}" for name, owner, _ in RUNNING]


def deployment(values=None):
    return one(render(with_needed(values)), "Deployment")["spec"]


def server(values=None):
    return deployment(values)["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(("name", "owner", "spec"), RUNNING, ids=IDS)
def test_pods_keep_the_restricted_standard(name, owner, spec):
    pod = spec["securityContext"]
    assert pod["runAsNonRoot"] is True and pod["runAsUser"] == 65532 and pod["runAsGroup"] == 65532
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        assert key not in spec
    kinds = {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim", "downwardAPI", "csi", "ephemeral"}
    for volume in spec.get("volumes", []):
        assert set(volume) - {"name"} <= kinds, volume
    for container in containers(spec):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]} and "privileged" not in context
        assert context.get("runAsNonRoot", True) is True and context.get("runAsUser", 65532) != 0
        assert not any("hostPort" in port for port in container.get("ports", []))


@pytest.mark.parametrize(("name", "owner", "spec"), RUNNING, ids=IDS)
def test_pods_have_no_token_and_bounded_memory(name, owner, spec):
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
    for container in containers(spec):
        if container["name"] != "log-shipper":
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]


@pytest.mark.parametrize(("name", "owner", "spec"), RUNNING, ids=IDS)
def test_what_is_mounted_exists(name, owner, spec):
    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    assert len(set(volumes)) == len(volumes)
    mounted = set()
    for container in containers(spec):
        mounts = container.get("volumeMounts", [])
        assert {mount["name"] for mount in mounts} <= set(volumes)
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        mounted |= {mount["name"] for mount in mounts}
    assert mounted == set(volumes), "a volume that nobody mounts"


def test_probes_ask_the_internal_port():
    container = server()
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"http": 8000, "internal": 9000}
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    # The database decides whether a replica is ready, never whether it is killed.
    assert asked == {
        "startup": {"path": "/livez", "port": "internal"},
        "readiness": {"path": "/readyz", "port": "internal"},
        "liveness": {"path": "/livez", "port": "internal"},
    }
    assert container["livenessProbe"]["failureThreshold"] * container["livenessProbe"]["periodSeconds"] >= 60


def test_an_upgrade_never_takes_a_replica_away_first():
    spec = deployment()
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert spec["minReadySeconds"] == 10 and spec["replicas"] == 2


def test_pods_end_with_the_kubelet_s_sleep():
    assert server()["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert server({"shutdown": {"preStopSleepSeconds": 20}})["lifecycle"]["preStop"]["sleep"]["seconds"] == 20


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        # 16,000 sockets at 250 a second.
        ({}, 5 + 64 + 35 + 10),
        ({"maxPrinters": 16001}, 5 + 65 + 35 + 10),
        ({"maxPrinters": 500}, 5 + 30 + 35 + 10),
        ({"shutdown": {"drainSeconds": 120}}, 5 + 120 + 35 + 10),
        ({"shutdown": {"preStopSleepSeconds": 15, "transferSeconds": 60, "marginSeconds": 1}}, 15 + 64 + 60 + 1),
        ({"maxPrinters": 40000, "shutdown": {"drainSeconds": 60}}, 5 + 160 + 35 + 10),
    ],
)
def test_the_grace_period_is_the_sum(values, seconds):
    spec = deployment(values)
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == seconds
    assert spec["progressDeadlineSeconds"] > seconds
    waiting = deployment({**values, "migrations": {"mode": "job", "timeoutSeconds": 1800}})
    assert waiting["progressDeadlineSeconds"] > seconds + 1800


def test_the_server_hears_of_what_the_grace_period_reckons_with():
    config = one(render(with_needed({"maxPrinters": 500, "shutdown": {"drainSeconds": 12}})), "ConfigMap", "paperminder-ota")["data"]
    assert (config["DRAIN_SECONDS"], config["MAX_CONNECTIONS"]) == ("12", "500")


def test_a_change_of_the_configuration_makes_new_pods():
    sums = {
        str(values): deployment(values)["template"]["metadata"]["annotations"]["checksum/config"]
        for values in ({}, {"maxPrinters": 500}, {"settings": {"RUST_LOG": "warn"}})
    }
    assert len(set(sums.values())) == 3


def test_a_new_chart_alone_makes_no_new_pods():
    labels = deployment()["template"]["metadata"]["labels"]
    assert "helm.sh/chart" not in labels and "app.kubernetes.io/version" not in labels


def test_replicas_spread_over_zones_and_nodes():
    spread = deployment()["template"]["spec"]["topologySpreadConstraints"]
    assert [rule["topologyKey"] for rule in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert all(rule["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "server" for rule in spread)


def test_a_digest_counts_instead_of_a_tag():
    version = load(CHART / "Chart.yaml")["appVersion"]
    assert server()["image"] == f"ghcr.io/paperminder/ota:{version}"
    assert server({"image": {"tag": "1.2.3"}})["image"] == "ghcr.io/paperminder/ota:1.2.3"
    digest = "sha256:" + "0" * 64
    assert server({"image": {"tag": "1.2.3", "digest": digest}})["image"] == f"ghcr.io/paperminder/ota@{digest}"


def test_all_pods_of_the_release_run_one_image():
    objects = render(merged(VALUE_SETS["argo-cd"], {"garbageCollection": {"mode": "cronjob"}, "image": {"tag": "9.9.9"}}))
    images = {container["image"] for _, spec in pod_specs(objects) for container in containers(spec)}
    assert images == {"ghcr.io/paperminder/ota:9.9.9"}


def test_services_select_the_servers_and_part_the_ports():
    objects = render()
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    public, internal = one(objects, "Service", "ota-paperminder-ota"), one(objects, "Service", "-internal")
    for service in (public, internal):
        assert service["spec"]["selector"].items() <= labels.items()
    assert [port["targetPort"] for port in public["spec"]["ports"]] == ["http"]
    assert [port["targetPort"] for port in internal["spec"]["ports"]] == ["internal"]
    assert internal["spec"]["type"] == "ClusterIP"


@pytest.mark.parametrize("name", ALL_SETS)
def test_selectors_take_in_servers_and_nobody_else(name):
    objects = render(ALL_SETS[name])
    others = [
        thing["metadata"]["labels"] for thing in objects if thing["kind"] == "Pod"
    ] + [thing["spec"]["template"]["metadata"]["labels"] for thing in objects if thing["kind"] == "Job"]
    selector = one(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    for labels in others:
        assert not selector.items() <= labels.items()
