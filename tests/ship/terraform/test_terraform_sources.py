"""What can be seen in terraform/ by reading it."""
import re
import subprocess
import sys

import pytest
from engine.workspace import MODULES, SCHEMA, TERRAFORM, named, parse

MODULE_FOLDERS = [TERRAFORM, *sorted((TERRAFORM / "modules").iterdir())]
FOLDERS = [*MODULE_FOLDERS, *sorted((TERRAFORM / "examples").iterdir())]
NAMES = [str(path.relative_to(TERRAFORM)) for path in FOLDERS]
# Whoever names one of these takes its value as it is: there is nothing that could be said of it beforehand.
FREE = {"access_logs", "web_acl_arn", "permissions_boundary_arn", "snapshot_identifier", "tags", "cdn", "identity", "secrets"}


def text(folder):
    return "\n".join(path.read_text() for path in sorted(folder.glob("*.tf")))


@pytest.mark.parametrize("folder", MODULE_FOLDERS, ids=NAMES[: len(MODULE_FOLDERS)])
def test_inputs_are_described_typed_and_validated(folder):
    wrong = []
    for name, variable in named(folder, "variable").items():
        if not re.search(r"\.$|\?$", variable.get("description", "")):
            wrong.append(f"{name}: no description that is a sentence")
        if "type" not in variable or "any" in re.findall(r"\w+", str(variable["type"])):
            wrong.append(f"{name}: no type")
        for validation in variable.get("validation", []):
            if len(validation["error_message"].split()) < 4:
                wrong.append(f"{name}: {validation['error_message']!r} is no help")
        if "validation" not in variable and name not in FREE and variable["type"] != "${bool}" and variable["type"] != "bool":
            wrong.append(f"{name}: nothing is checked")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", MODULE_FOLDERS, ids=NAMES[: len(MODULE_FOLDERS)])
def test_nothing_is_declared_in_vain(folder):
    source = text(folder)
    inputs = [name for name in named(folder, "variable") if not re.search(rf"\bvar\.{name}\b", re.sub(r"(?ms)^variable .*?^}", "", source))]
    assert not inputs, f"nobody reads {inputs}"
    local = {name for block in parse(folder).get("locals", []) for name in block}
    assert not [name for name in local if not re.search(rf"\blocal\.{name}\b", source)]


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_outputs_are_described(folder):
    outputs = named(folder, "output")
    assert outputs and all(re.search(r"\.$", output.get("description", "")) for output in outputs.values())


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_versions_are_pinned(folder):
    (block,) = [block for block in parse(folder)["terraform"] if "required_providers" in block]
    assert block["required_version"] == ">= 1.11"
    assert block["required_providers"] == [{"aws": {"source": "hashicorp/aws", "version": "~> 6.27"}}]
    # What an older one of the same major version has, those allowed have too.
    major, minor, _ = map(int, SCHEMA["provider"].split("."))
    assert major == 6 and minor <= 27
    for name, call in named(folder, "module").items():
        if call["source"].startswith("."):
            assert (folder / call["source"]).resolve() in MODULE_FOLDERS, f"{name}: {call['source']}"
        else:
            assert call["version"] == "~> " + ".".join(MODULES[call["source"]]["version"].split(".")[:2]), name


def test_nothing_makes_a_secret():
    """What a resource makes or is given stands in the state. Passwords are RDS's, private keys the operator's."""
    secret = re.compile(
        r"random_password|random_string|tls_private_key|tls_self_signed|aws_iam_access_key|aws_secretsmanager_secret_version"
        r"|aws_ssm_parameter|kubernetes_secret|aws_db_instance|\bpassword(_wo)?\s*=(?!=)|master_password|BEGIN [A-Z ]*PRIVATE"
    )
    files = [path for path in TERRAFORM.rglob("*") if path.is_file() and path.suffix in {".tf", ".pem", ".hcl", ".tfvars"}]
    assert len(files) > 20
    found = [f"{path.relative_to(TERRAFORM)}: {match.group(0)}" for path in files for match in secret.finditer(path.read_text())]
    assert not found, found
    providers = {match for path in files for match in re.findall(r'source\s*=\s*"(hashicorp/\w+)"', path.read_text())}
    assert providers == {"hashicorp/aws"}


def test_the_list_of_modules_has_what_is_used_and_nothing_else():
    given, outputs = {}, {}
    for folder in MODULE_FOLDERS:
        for name, call in named(folder, "module").items():
            if call["source"] in MODULES:
                given.setdefault(call["source"], set()).update(call.keys() - {"source", "version", "count", "for_each", "providers", "depends_on"})
                outputs.setdefault(call["source"], set()).update(re.findall(rf"\bmodule\.{name}(?:\[[^\]]*\])?\.(\w+)", text(folder)))
    assert given == {source: set(module["variables"]) for source, module in MODULES.items()}
    assert outputs == {source: set(module["outputs"]) for source, module in MODULES.items()}


def test_readmes_are_what_the_sources_say():
    done = subprocess.run(
        [sys.executable, str(TERRAFORM / "scripts" / "generate-readmes"), "--check"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_links_in_readmes_lead_somewhere():
    wrong = []
    for path in TERRAFORM.rglob("*.md"):
        for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text()):
            if not (path.parent / link).exists():
                wrong.append(f"{path.relative_to(TERRAFORM)}: {link}")
    assert not wrong, wrong


def test_the_commands_of_the_readme_use_outputs_that_an_example_has():
    used = set(re.findall(r"terraform output -raw (\w+)", (TERRAFORM / "README.md").read_text()))
    assert len(used) >= 4
    assert used <= set(named(TERRAFORM / "examples" / "minimal", "output"))
    assert used <= set(named(TERRAFORM / "examples" / "complete", "output"))
