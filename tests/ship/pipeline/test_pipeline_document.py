"""What docs/pipeline.md says of the server is what the server has."""

import json
import re

import pipeline_document as document
import pytest
from pipeline_world import ROOT

API = json.loads((ROOT / "openapi.json").read_text())
ROLES = (ROOT / "src/auth/role.rs").read_text()
SCRIPT = document.FILES["ci/ota.sh"]


def operation(method, path):
    """The operation behind a path that has values, or names, in the place of parameters."""
    for template, operations in API["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and (method is None or method.lower() in operations):
            return operations.get((method or "").lower(), operations)
    raise AssertionError(f"{method or ''} {path} is not in openapi.json")


def properties(node):
    """The names of all fields."""
    if isinstance(node, dict):
        yield from node.get("properties", {})
        for value in node.values():
            yield from properties(value)
    elif isinstance(node, list):
        for value in node:
            yield from properties(value)


def test_every_path_exists():
    found = re.findall(r"(?:\b(GET|POST|PUT|PATCH|DELETE)\s+\"?|\W)(/api/(?!v4)[^\s?\"`'),]+)", document.TEXT)
    assert len(found) >= 15
    for method, path in found:
        operation(method or None, path)


def test_every_field_exists():
    known = set(properties(API)) | {name for schema in API["components"]["schemas"].values() for name in schema.get("properties", {})}
    # GitHub's answer and what a token says.
    known |= {"value", "iss", "aud", "sub", "exp", "rollouts"}
    asked = set(re.findall(r"jq -r \.([a-z_0-9]+)", SCRIPT))
    for program in re.findall(r"(?:jq|rollouts)\b[^'\n]*'([^']*)'", SCRIPT):
        asked |= set(re.findall(r"(?<![\w.])\.([a-z_0-9]+)", re.sub(r'"(?:[^"\\]|\\[^(])*"', '""', program)))
        asked |= set(re.findall(r"\\\(\.([a-z_0-9]+)", program))
    assert {"confirmed_count", "sha256_checksum", "status_reason", "detail", "rolls_back"} <= asked, asked
    assert not asked - known, asked - known
    for name in re.findall(r"`([a-z]+_[a-z_]+)`", document.TEXT):
        assert name in known or name in {"environment", "resource_group"}, f"`{name}` is no field"


def test_states_and_reasons_exist():
    words = {word for schema in API["components"]["schemas"].values() for word in schema.get("enum", [])}
    compared = set(re.findall(r'\.(?:status|status_reason|approval) [!=]= "(\w+)"', SCRIPT))
    assert {"cancelled", "paused", "operator", "completed", "waiting"} <= compared
    assert compared <= words


def roles_of(operation_id):
    """Who may do it, as src/auth/role.rs has it."""
    rights = re.findall(r"\(\s*Right::(\w+),\s*&\[(.*?)\]", ROLES, re.S)
    [right] = [right for right, names in rights if f'"{operation_id}"' in names]
    return {
        role.lower()
        for role, given in re.findall(r"Self::(\w+) => (?:\{\s*)?(true|matches!.*?\)|right == Right::\w+)", ROLES, re.S)
        if given == "true" or re.search(rf"Right::{right}\b", given)
    }


def test_the_role_of_a_pipeline_is_the_least_that_does_it():
    calls = re.findall(r"call (GET|POST|PATCH) \"?([^\s\"?]+)", SCRIPT)
    assert len(calls) > 10
    needed = [roles_of(operation(method, path)["operationId"]) for method, path in calls]
    assert set.intersection(*needed) == {"admin", "release"}, "the document says `release`"
    assert roles_of("approveRollout") >= {"operator"}
    assert roles_of("rollBack") >= {"release"}
    for role in re.findall(r"role[s]? (?:of )?`(\w+)`|\"role\": \"(\w+)\"|--role (\w+)", document.TEXT):
        assert f"Self::{''.join(role).title()} =>" in ROLES


def test_both_pipelines_do_the_same():
    def commands(lines):
        return re.findall(r"ci/ota\.sh .*", "\n".join(lines))

    for job in ("canary", "stable", "back"):
        steps = [step.get("run", "") for step in document.GITHUB["jobs"][job]["steps"]]
        assert commands(steps) == commands(document.GITLAB[job]["script"]) != []
    for job, plan in (("canary", "OTA_CANARY_PLAN"), ("stable", "OTA_STABLE_PLAN")):
        [written] = [step["env"]["OTA_PLAN"] for step in document.GITHUB["jobs"][job]["steps"] if "env" in step]
        assert re.search(r"'(.*)'", written, re.S)[1] == document.GITLAB["variables"][plan]


def test_the_variables_that_are_named_are_used():
    used = SCRIPT + document.FILES[".gitlab-ci.yml"] + document.FILES[".github/workflows/release.yml"]
    for name in set(re.findall(r"\b(?:OTA|ACTIONS)_[A-Z_]+", document.TEXT)):
        assert name in used, f"{name} is named, and nobody reads it"


def test_a_secret_is_in_the_environment_of_one_step_only():
    github = document.FILES[".github/workflows/release.yml"]
    assert "secrets" not in json.dumps(document.GITHUB["env"])
    for job in document.GITHUB["jobs"].values():
        assert "env" not in job
        for step in job["steps"]:
            assert "uses" not in step or "secrets" not in json.dumps(step)
    assert github.count("secrets.") == 3
    assert "OTA_KEY" not in document.FILES[".gitlab-ci.yml"], "it is a variable of the project"


@pytest.mark.parametrize("link", re.findall(r"\]\(((?:guide\.md)?#[^)]+)\)", document.TEXT))
def test_links_lead_somewhere(link):
    file, _, anchor = link.partition("#")
    text = (ROOT / "docs" / file).read_text() if file else document.TEXT
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
