"""Every value set renders with Helm's engine, passes its lint, and makes objects that Kubernetes takes, the oldest version that
the chart allows as well as the newest that is known here."""

import functools
import re

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from chartkit import ALL_SETS, CHART, EXAMPLE_SETS, EXAMPLES, ROOT, VALUE_SETS, chart, files, load, render
from crds import SPECS
from kubernetes_validate import utils

# Read once each, not once for each object.
utils.schema_contents = functools.cache(utils.schema_contents)

OLDEST = re.search(r">=(\d+\.\d+)\.0-0", load(CHART / "Chart.yaml")["kubeVersion"])[1]
NEWEST = utils.latest_version()
EXTRA = {
    str(path.relative_to(EXAMPLES)): [thing for thing in yaml.safe_load_all(path.read_text()) if thing]
    for path in sorted([*EXAMPLES.glob("*/objects.yaml"), *EXAMPLES.glob("*/patch.yaml")])
}


def check(thing, version):
    kind = f"{thing['apiVersion']} {thing['kind']}"
    if kind in SPECS:
        assert set(thing) == {"apiVersion", "kind", "metadata", "spec"}, kind
        jsonschema.Draft202012Validator(SPECS[kind]).validate(thing["spec"])
    else:
        kubernetes_validate.validate(thing, version, strict=True)


def test_there_are_enough_value_sets():
    assert len(VALUE_SETS) >= 12 and len({name.split("/")[0] for name in EXAMPLE_SETS}) == 6


def test_the_versions_are_those_that_are_claimed():
    # The kubelet's own sleep is on by default since 1.30: no version below can be claimed.
    known = utils.all_versions()
    assert OLDEST == "1.30" and f"{OLDEST}.0" in known and NEWEST == known[-1] != f"{OLDEST}.0"


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", ALL_SETS)
def test_objects_are_those_of_kubernetes(name, version):
    objects = render(ALL_SETS[name])
    assert len(objects) > 6
    for thing in objects:
        check(thing, version)


@pytest.mark.parametrize("name", EXTRA)
def test_objects_of_the_examples_are_right(name):
    for thing in EXTRA[name]:
        check(thing, NEWEST)
        assert thing["metadata"]["namespace"] == "devices"


def test_a_slip_of_the_pen_is_seen():
    route = next(thing for thing in render(EXAMPLE_SETS["envoy-gateway/values"]) if thing["kind"] == "HTTPRoute")
    route["spec"]["rules"][0]["timeout"] = route["spec"]["rules"][0].pop("timeouts")
    with pytest.raises(jsonschema.ValidationError):
        check(route, NEWEST)
    deployment = next(thing for thing in render() if thing["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        check(deployment, NEWEST)


@pytest.mark.parametrize("name", ALL_SETS)
def test_lint_has_nothing_to_say(name):
    report = helm_python.lint(CHART, ALL_SETS[name], strict=True, kube_version=f"v{OLDEST}.0")
    said = [message for message in report["messages"] if message["error"] != "icon is recommended"]
    assert not said and not report["errors"]


@pytest.mark.parametrize("name", ALL_SETS)
def test_the_same_values_make_the_same_objects(name):
    options = {"name": "ota", "namespace": "devices"}
    first, second = (chart().render(ALL_SETS[name], **options) for _ in range(2))
    assert first == second
    # Argo CD knows no revision and no upgrade.
    upgrade = chart().render(ALL_SETS[name], **options, revision=7, is_install=False, is_upgrade=True)
    assert first == upgrade


@pytest.mark.parametrize("name", ALL_SETS)
def test_names_are_one_each_and_short_enough(name):
    long = "a-release-with-the-longest-name-that-helm-lets-one-ha"
    objects = render(ALL_SETS[name], name=long)
    names = [(thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"]) for thing in objects]
    assert len(set(names)) == len(names)
    # A CronJob's Jobs get eleven characters more.
    assert all(len(name) <= (52 if kind == "CronJob" else 63) for kind, _, name in names), names


@pytest.mark.parametrize("name", ALL_SETS)
def test_nothing_is_left_of_templates(name):
    for path, text in files(ALL_SETS[name]).items():
        for sign in ("<no value>", "%!", "<nil>", "map["):
            assert sign not in text, path
        for line in text.splitlines():
            # Alerts and dashboards have templates of their own.
            if "{{" in line:
                assert path.split("/")[-1] in ("prometheusrule.yaml", "dashboards.yaml"), (path, line)


def test_the_server_s_version_is_that_of_the_sources():
    cargo = re.search(r'^version = "([^"]+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    assert load(CHART / "Chart.yaml")["appVersion"] == cargo
    assert f"## {load(CHART / 'Chart.yaml')['version']}\n" in (CHART / "UPGRADING.md").read_text()


def test_the_package_is_whole_and_holds_no_value_sets(tmp_path):
    archive = helm_python.package(CHART, destination=tmp_path)
    with helm_python.Chart.load(archive) as packed:
        names = {entry["name"] for entry in packed.files}
        assert {"README.md", "UPGRADING.md", "files/alerts.yaml", "files/test.sh", "files/test-image.bin"} <= names
        assert not [name for name in names if name.startswith("ci/")]
        assert packed.render(VALUE_SETS["observability"], name="ota", namespace="devices") == chart().render(
            VALUE_SETS["observability"], name="ota", namespace="devices")
