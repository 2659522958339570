"""The commands of docs/operations.md that restore a release in a cluster: typed as they stand there, with a stand-in for kubectl
that knows the rendered objects and keeps what it is told to make."""

import json
import os
import re
import subprocess
import sys

import kubernetes_validate
import pytest
from chartkit import ROOT, VALUE_SETS, containers, merged, one, program, render

KUBECTL = """#!{python}
import json, pathlib, sys
folder, words = pathlib.Path({folder!r}), sys.argv[1:]
with open(folder / "said", "a") as log:
    log.write(" ".join(words) + "\\n")
if "create" in words:
    made = json.load(sys.stdin)
    number = len(list(folder.glob("job-*")))
    (folder / f"job-{{number}}").write_text(json.dumps(made))
    print(f"job.batch/restore-{{number}}")
elif "jsonpath={{.status.succeeded}}{{.status.failed}}" in words or "jsonpath={{.status.succeeded}}" in words:
    print("1", end="")
elif "get" in words:
    kind = {{"deploy": "Deployment", "configmap": "ConfigMap", "cronjob": "CronJob"}}[words[words.index("get") + 1]]
    labels = dict(pair.split("=") for pair in words[words.index("-l") + 1].split(","))
    found = [one for one in json.loads((folder / "objects").read_text())
             if one["kind"] == kind and labels.items() <= one["metadata"]["labels"].items()]
    if words[-1] == "json":
        print(json.dumps({{"items": found}}))
    else:
        print(*(f"{{kind.lower()}}/{{one['metadata']['name']}}" for one in found), sep="\\n")
"""


def commands():
    """What is typed in the section, in its blocks."""
    text = (ROOT / "docs/operations.md").read_text().split("\n### Restore on Kubernetes\n")[1].split("\n## ")[0]
    return [re.sub(r"^\$ ", "", block, flags=re.M) for block in re.findall(r"^```console\n(.*?)^```", text, re.S | re.M)]


@pytest.fixture(params=["aws-pod-identity", "minimal"])
def restored(request, tmp_path):
    """(objects of the release, the Jobs that were made, what kubectl was told)"""
    values = merged(VALUE_SETS[request.param], {"garbageCollection": {"mode": "cronjob"}})
    objects = render(values)
    (tmp_path / "objects").write_text(json.dumps(objects))
    (tmp_path / "kubectl").write_text(KUBECTL.format(python=sys.executable, folder=str(tmp_path)))
    (tmp_path / "kubectl").chmod(0o755)
    (tmp_path / "paperminder.trail").write_text(f"ok 41:{'a' * 64}\n")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "".join(commands()[:2])], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr
    jobs = [json.loads((tmp_path / f"job-{number}").read_text()) for number in range(len(list(tmp_path.glob("job-*"))))]
    return objects, jobs, (tmp_path / "said").read_text()


def test_each_command_is_a_job_that_kubernetes_takes(restored):
    objects, jobs, _ = restored
    words = [job["spec"]["template"]["spec"]["containers"][0]["args"] for job in jobs]
    assert words == [["audit", "verify", "--expect", f"41:{'a' * 64}"], ["migrate", "--grant-to", "paperminder"], ["hold"], ["doctor"]]
    for job, arguments in zip(jobs, words):
        kubernetes_validate.validate(job, "1.30", strict=True)
        command = [word for word in arguments[:2] if word.isalpha()]
        said = subprocess.run([program(), *command, "--help"], capture_output=True, text=True)
        assert said.returncode == 0 and all(word in said.stdout for word in arguments if word.startswith("--")), said.stderr


def test_it_runs_as_the_servers_do_but_for_the_role(restored):
    objects, jobs, _ = restored
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    for job in jobs:
        spec = job["spec"]["template"]["spec"]
        assert spec["restartPolicy"] == "Never" and len(containers(spec)) == 1
        for key in ("serviceAccountName", "securityContext", "automountServiceAccountToken"):
            assert spec[key] == pod[key]
        was, container = pod["containers"][0], spec["containers"][0]
        for key in ("image", "envFrom", "volumeMounts", "securityContext", "resources"):
            assert container[key] == was[key]
        assert not [key for key in container if key.endswith("Probe")]
        # `env` counts before `envFrom`.
        url = [entry["value"] for entry in container["env"] if entry["name"] == "DATABASE_URL"]
        served = one(objects, "ConfigMap", "ota-paperminder-ota")["data"]["DATABASE_URL"]
        assert url == [re.sub("//[^@]+@", "//paperminder_owner@", served)]
        secrets = {volume["name"]: volume.get("secret", {}).get("secretName") for volume in spec["volumes"]}
        assert secrets["database"] == "ota-database-owner"


def test_no_service_sends_printers_to_it(restored):
    objects, jobs, _ = restored
    for thing in objects:
        if thing["kind"] == "Service":
            for job in jobs:
                assert not thing["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()


def test_nothing_else_runs_meanwhile(restored):
    _, _, said = restored
    assert "scale deploy -l app.kubernetes.io/instance=ota,app.kubernetes.io/component=server --replicas=0" in said
    assert 'patch cronjob/ota-paperminder-ota-gc -p {"spec": {"suspend": true}}' in said


def test_at_last_nobody_removes_garbage():
    last = commands()[2]
    assert "--set garbageCollection.mode=off" in last
    # An upgrade starts the servers, so none comes before the rollouts are held.
    assert "helm" not in "".join(commands()[:2])
