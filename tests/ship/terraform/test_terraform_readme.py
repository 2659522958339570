"""The commands of terraform/README.md, typed into bash with stand-ins for the programs that reach out."""
import json
import os
import re
import shutil
import subprocess

import pytest
from engine.workspace import TERRAFORM

OUTPUTS = {
    "namespace": "ota",
    "database_host": "db.example.com",
    "database_owner_secret_arn": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:rds!db-0a1b",
    "helm_values": '"s3":\n  "bucket": "acme-firmware"\n',
}
# Each writes down what it was asked and given, one line of JSON a call.
STAND_IN = """#!/usr/bin/env python3
import json, os, pathlib, sys
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
outputs = json.loads(os.environ["OUTPUTS"])
files = [word.rsplit("=", 1)[1] for word in words if word.startswith("--from-file=")]
given = "".join(pathlib.Path(file).read_text() for file in files)
if name == "terraform" and words[:2] == ["output", "-raw"]:
    sys.stdout.write(outputs[words[2]])
elif name == "aws":
    print(json.dumps({"username": "paperminder_owner", "password": "p$a'ss word"}))
elif name == "helm" or words[-2:] == ["-f", "-"] or "run" in words:
    given += sys.stdin.read()
if "--dry-run=client" in words:
    print("kind: Secret")
with open(os.environ["CALLS"], "a") as log:
    log.write(json.dumps([name, words, given]) + "\\n")
"""


@pytest.fixture
def calls(tmp_path):
    for program in ("openssl", "jq", "bash"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is not installed: run 'scripts/setup test'")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("terraform", "aws", "kubectl", "helm"):
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "OUTPUTS": json.dumps(OUTPUTS), "CALLS": str(tmp_path / "calls")}

    def typed(path):
        """What the numbered steps' consoles say, without prompts."""
        (tmp_path / "2026-11.pem").write_text("a private key")
        (tmp_path / "keys").mkdir(exist_ok=True)
        blocks = re.findall(r"^ *```console\n(.*?)^ *```", path.read_text().split("## How it is tested")[0], re.M | re.S)
        # The first one of the file is what the steps come to.
        lines = [re.sub(r"^ {3}", "", line) for block in blocks for line in block.splitlines()]
        script = "\n".join(re.sub(r"^ *\$ ", "", line) for line in lines).replace("<chart>", "chart")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{script}\n{done.stderr}"
        log = tmp_path / "calls"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    return typed


def test_the_steps_make_what_the_chart_reads(calls):
    made = calls(TERRAFORM / "README.md")
    assert [words for name, words, _ in made if name == "terraform" and words[0] != "output"] == [["init"], ["apply"]]
    # A password with a line feed behind it opens nothing.
    secrets = {words[words.index("generic") + 1]: given for name, words, given in made if "generic" in words}
    assert secrets["paperminder-ota-database-owner"] == "p$a'ss word"
    assert re.fullmatch("[0-9a-f]{48}", secrets["paperminder-ota-database"])
    assert secrets["paperminder-ota-cdn"] == "a private key"
    # Names are those that helm_values has by default.
    variables = (TERRAFORM / "variables.tf").read_text()
    assert all(f'"{name}"' in variables for name in secrets)
    assert all("ota" in words for name, words, _ in made if name == "kubectl" and words != ["apply", "-f", "-"])

    ((words, sql),) = [(words, given) for name, words, given in made if name == "kubectl" and "run" in words]
    assert sql == "create role paperminder login password :'password';\n"
    (pod,) = json.loads(words[-1].removeprefix("--overrides="))["spec"]["containers"]
    environment = {entry["name"]: entry for entry in pod["env"]}
    assert environment["PGHOST"]["value"] == "db.example.com" and pod["stdinOnce"] and pod["securityContext"]["runAsNonRoot"]
    assert environment["SERVER"]["valueFrom"]["secretKeyRef"]["name"] in secrets

    upgrades = [(words, given) for name, words, given in made if name == "helm"]
    assert upgrades and all(words[0] == "upgrade" and given == OUTPUTS["helm_values"] for words, given in upgrades)


def test_keys_are_made_as_the_cdn_wants_them(calls, tmp_path):
    calls(TERRAFORM / "modules" / "cdn" / "README.md")
    # What every P-256 public key begins with; variables.tf wants the same.
    assert "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE" in (tmp_path / "keys" / "2026-11.pub.pem").read_text()
