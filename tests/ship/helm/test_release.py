"""The script of `helm test`, against a real server, as the pod would run it."""

import os
import subprocess

import pytest
from chartkit import CHART, VALUE_SETS, containers, files, merged, one, program, render, tool

IMAGE = CHART / "files" / "test-image.bin"


def run(server, folder, key=None, url=None):
    (folder / "key").write_text(key or "")
    return subprocess.run(
        [tool("sh"), CHART / "files" / "test.sh"], capture_output=True, text=True, timeout=120,
        env={**os.environ, "URL": url or server.url, "IMAGE": str(IMAGE), "KEY_FILE": str(folder / "key"), "TMPDIR": str(folder)},
    )


def test_a_tiny_release_goes_up_down_and_away(server, tmp_path):
    done = run(server, tmp_path, server.key)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("is uploaded", "downloaded with --http1.1", "downloaded with --http1.0", "is deleted"):
        assert words in done.stdout
    assert '"total":0' in server.curl(f"{server.url}/api/firmware"), "something is left"


def test_without_a_key_it_only_looks(server, tmp_path):
    done = run(server, tmp_path)
    assert done.returncode == 0 and "no key" in done.stdout and "uploaded" not in done.stdout


def test_a_key_that_opens_nothing_fails_it(server, tmp_path):
    done = run(server, tmp_path, "a-key-that-nobody-knows-0123456789")
    assert done.returncode == 1 and "FAILED: the upload answers 401" in done.stderr


def test_no_server_fails_it(server, tmp_path):
    assert run(server, tmp_path, url="http://127.0.0.1:9").returncode != 0


def test_the_image_is_one_that_the_server_s_own_command_makes():
    made = subprocess.run([program(), "image", "--size", "8192"], capture_output=True, check=True).stdout
    assert IMAGE.read_bytes() == made


@pytest.mark.parametrize("secret", ["", "ota-test"])
def test_the_pod_has_what_the_script_reads(secret):
    objects = render(merged(VALUE_SETS["minimal"], {"tests": {"existingSecret": secret}}))
    pod, config = one(objects, "Pod"), one(objects, "ConfigMap", "-test")
    for thing in (pod, config):
        assert thing["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert int(config["metadata"]["annotations"]["helm.sh/hook-weight"]) < int(pod["metadata"]["annotations"].get("helm.sh/hook-weight", 0))
    container = containers(pod["spec"])[0]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/test", "/tmp", *(["/key"] if secret else [])}
    assert config["data"]["test.sh"].strip() == (CHART / "files" / "test.sh").read_text().strip()
    assert container["command"] == ["sh", "/test/test.sh"]
    if secret:
        item = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "key")["secret"]["items"][0]
        assert item == {"key": "api-key", "path": "api-key"}


def test_it_can_be_left_out():
    assert "kind: Pod\n" not in "".join(files(VALUE_SETS["argo-cd"]).values())
