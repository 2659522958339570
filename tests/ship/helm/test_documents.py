"""What is generated is what values.yaml says; what the documents name is there."""

import re
import shutil
import subprocess
import sys

import jsonschema
import pytest
from chartkit import CHART, EXAMPLES, EXAMPLE_SETS, ROOT, chart, load, one, render

GENERATE = ROOT / "helm" / "scripts" / "generate"
DOCUMENTS = [CHART / "README.md", CHART / "UPGRADING.md", EXAMPLES / "README.md"]


def generate(root, *arguments):
    return subprocess.run([sys.executable, root / "helm" / "scripts" / "generate", *arguments], capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "helm", tmp_path / "helm")
    for name in ("README.md", "Cargo.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_generating_changes_nothing():
    done = generate(ROOT, "--check")
    assert done.returncode == 0, done.stderr


def test_a_new_value_is_noticed_and_generated(copy):
    values = copy / "helm" / "paperminder-ota" / "values.yaml"
    values.write_text(values.read_text() + "# -- What it is\nnewValue: 3\n")
    done = generate(copy, "--check")
    assert done.returncode == 1 and "values.schema.json is not what values.yaml and Cargo.toml say" in done.stderr
    assert generate(copy).returncode == 0 and generate(copy, "--check").returncode == 0
    assert "| `newValue` | `3` | What it is |" in (copy / "helm" / "paperminder-ota" / "README.md").read_text()


def test_a_value_without_a_description_is_refused(copy):
    values = copy / "helm" / "paperminder-ota" / "values.yaml"
    values.write_text(values.read_text() + "newValue: 3\n")
    done = generate(copy)
    assert done.returncode != 0 and "newValue has no description" in done.stderr


def test_the_schema_is_one_and_closed():
    schema = chart().schema
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(load(CHART / "values.yaml"))

    def maps(part, path):
        if part.get("type") == "object" and "properties" in part:
            yield path, part
        for key, inner in part.get("properties", {}).items():
            yield from maps(inner, f"{path}.{key}")

    found = dict(maps(schema, ""))
    assert len(found) > 25
    assert all(part["additionalProperties"] is False for part in found.values())


def test_every_value_has_a_description():
    def leaves(part, path=""):
        for key, inner in part.get("properties", {}).items():
            if path + key == "settings":
                continue
            if inner.get("additionalProperties") is False and "default" not in inner:
                yield from leaves(inner, f"{path}{key}.")
            else:
                yield path + key, inner

    found = dict(leaves(chart().schema))
    assert len(found) > 120
    assert not [path for path, part in found.items() if len(part.get("description", "")) < 3]
    table = (CHART / "README.md").read_text()
    assert all(f"| `{path}` |" in table for path in found)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_values_that_documents_name_exist(path):
    named = re.findall(r"`([a-z]\w*(?:\.\w+)+)`", path.read_text())
    known = chart().values
    for name in named:
        first, *rest = name.split(".")
        if first in known:
            value = known
            for part in (first, *rest):
                assert isinstance(value, dict) and part in value, name
                value = value[part]


def test_runbooks_find_the_deployment_of_any_release():
    pages = {path.name: path.read_text() for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    pods = re.search(r"^export PODS=(\S+)", pages["README.md"], re.M)[1]
    labels = dict(pair.split("=") for pair in pods.split(","))
    assert "export DEPLOY=$(kubectl -n $NS get deploy -l $PODS -o name)\n" in pages["README.md"]
    for release in ("ota", "paperminder-ota", "else"):
        objects = render(name=release)
        assert [one_["kind"] for one_ in objects if one_["kind"] == "Deployment" and labels.items() <= one_["metadata"]["labels"].items()] == ["Deployment"]
    for name, text in pages.items():
        assert not re.search(r"deploy(ment)?/[a-z]", text), name
        assert "$DEPLOY" not in text or name == "README.md" or "`$PODS`, `$DEPLOY`," in text, name


def test_every_example_says_what_its_controller_needs():
    nginx = load(EXAMPLES / "nginx" / "values.yaml")["ingress"]["annotations"]
    assert all(int(nginx[f"nginx.ingress.kubernetes.io/proxy-{way}-timeout"]) > 60 for way in ("read", "send"))
    f5 = load(EXAMPLES / "nginx" / "values-f5.yaml")["ingress"]["annotations"]
    assert f5["nginx.org/websocket-services"] == "ota-paperminder-ota" and "proxy_request_buffering off;" in f5["nginx.org/location-snippets"]
    alb = load(EXAMPLES / "alb" / "values.yaml")["ingress"]["annotations"]
    alb = {key.removeprefix("alb.ingress.kubernetes.io/"): value for key, value in alb.items()}
    assert alb["load-balancer-attributes"] == "idle_timeout.timeout_seconds=3600" and alb["target-type"] == "ip"
    assert (alb["healthcheck-port"], alb["healthcheck-path"]) == ("9000", "/readyz") and "ssl-redirect" not in alb
    groups = dict(pair.split("=") for pair in alb["target-group-attributes"].split(","))
    assert groups["load_balancing.algorithm.type"] == "round_robin"
    pod = one(render(EXAMPLE_SETS["alb/values"]), "Deployment")["spec"]["template"]["spec"]
    # The target keeps its sockets as long as the server lets them go.
    assert int(groups["deregistration_delay.timeout_seconds"]) + 20 >= pod["terminationGracePeriodSeconds"]
    assert f"({pod['terminationGracePeriodSeconds']} seconds" in (EXAMPLES / "alb" / "values.yaml").read_text()
    for entry in load(EXAMPLES / "traefik" / "controller-values.yaml")["ports"].values():
        assert int(entry["transport"]["respondingTimeouts"]["readTimeout"].rstrip("s")) > 900


@pytest.mark.parametrize("path", ["nginx/values.yaml", "nginx/values-f5.yaml", "haproxy/values.yaml"])
def test_redirects_that_are_on_by_default_are_off(path):
    said = {key: value for key, value in load(EXAMPLES / path)["ingress"]["annotations"].items() if key.endswith("/ssl-redirect")}
    assert said and set(map(str.lower, said.values())) == {"false"}


def test_examples_without_a_redirect_and_without_compression():
    text = "".join(path.read_text() for path in EXAMPLES.glob("*/*.yaml"))
    assert not re.search(r'(ssl-redirect|redirect-to-https): "?true', text, re.I)
    assert not re.search(r"\bcompress", re.sub(r"#.*", "", text))
