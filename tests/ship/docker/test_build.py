"""The Dockerfile in a real builder (buildah), on bases that stand in for the two that only a registry has.

The stand-in for Rust's image has busybox and a `cargo` that demands what the real one would need, and answers with the program of
this build; the stand-in for distroless has the C library and nothing else. What runs here for real: the parser, the context with its
.dockerignore, every COPY and RUN, the cache mounts, arguments, labels, user and entry point. What does not: cargo-chef, the
compiler, both registries, another processor. docker/README.md says how to run those.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUSYBOX = "/bin/busybox"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("buildah") or not pathlib.Path(BUSYBOX).exists(),
    reason="needs root, buildah and busybox-static",
)

CARGO = r"""#!/bin/sh
set -eu
need() { for one in "$@"; do test -e "$one" || { echo "cargo: there is no $one" >&2; exit 1; }; done; }
refuse() { for one in "$@"; do test ! -e "$one" || { echo "cargo: what is $one for?" >&2; exit 1; }; done; }
case "$1 ${2-}" in
'install '*) need /usr/local/cargo/registry ;;
'chef prepare')
  need Cargo.toml Cargo.lock .cargo/config.toml src/main.rs
  echo '{}' >recipe.json ;;
'chef cook')
  need recipe.json /usr/local/cargo/registry
  # Sources would make every change of theirs build the dependencies again.
  refuse src Cargo.toml
  mkdir target ;;
'build '*)
  need Cargo.toml Cargo.lock .cargo/config.toml src/main.rs .sqlx migrations target /usr/local/cargo/registry
  refuse tests docs openapi.json .git
  test "$SQLX_OFFLINE" = true
  test "$PAPERMINDER_COMMIT" = 0123456789
  mkdir -p target/x86_64-unknown-linux-gnu/release
  cp /program target/x86_64-unknown-linux-gnu/release/paperminder-ota ;;
*) exit 1 ;;
esac
"""


class Builder:
    def __init__(self, folder):
        self.options = ["--storage-driver", "vfs", "--root", f"{folder}/storage", "--runroot", f"{folder}/run"]

    def run(self, *arguments):
        done = subprocess.run(["buildah", *self.options, *arguments], capture_output=True, text=True, timeout=300, cwd=ROOT)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    def base(self, name, folder):
        (folder / "Dockerfile").write_text("FROM scratch\nCOPY root /\nENV PATH=/usr/local/cargo/bin:/usr/bin:/bin\n")
        self.run("bud", "--isolation", "chroot", "-q", "-t", f"localhost/{name}:1", str(folder))


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture(scope="module")
def image(program, tmp_path_factory):
    """(builder, name) of the image that the Dockerfile makes."""
    if os.uname().machine != "x86_64":
        pytest.skip("the stand-ins are for amd64")
    rust, runtime = tmp_path_factory.mktemp("rust"), tmp_path_factory.mktemp("runtime")
    tools = rust / "root/bin"
    tools.mkdir(parents=True)
    shutil.copy(BUSYBOX, tools / "busybox")
    for name in ("sh", "sed", "cp", "mkdir", "cat", "test", "rm"):
        (tools / name).symlink_to("busybox")
    shutil.copy(program, rust / "root/program")
    executable(rust / "root/usr/local/cargo/bin/cargo", CARGO)
    executable(rust / "root/usr/bin/x86_64-linux-gnu-gcc", "#!/bin/sh\n")
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=True, timeout=30).stdout
    names = re.findall(r"(/\S+) \(0x", libraries)
    # What distroless' `cc` has; anything else would not be found there.
    known = ("ld-linux-x86-64.so", "libc.so", "libm.so", "libgcc_s.so", "libdl.so", "libpthread.so", "librt.so", "libstdc++.so")
    assert names and all(pathlib.Path(name).name.startswith(known) for name in names), names
    for name in names:
        target = runtime / "root" / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, target)
    folder = tmp_path_factory.mktemp("buildah")
    builder = Builder(folder)
    builder.base("rust", rust)
    builder.base("runtime", runtime)
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    builder.run(
        # `docker`, as a health check is none of OCI's.
        "bud", "--isolation", "chroot", "--pull=never", "--format", "docker", "-f", "docker/Dockerfile", "-t", "localhost/ota:1",
        "--build-arg", "RUST_IMAGE=localhost/rust:1", "--build-arg", "RUNTIME_IMAGE=localhost/runtime:1",
        "--build-arg", "COMMIT=0123456789", "--build-arg", f"VERSION={version}", ".",
    )
    yield builder, "localhost/ota:1"
    shutil.rmtree(folder, ignore_errors=True)


def test_the_image_says_what_it_is(image):
    builder, name = image
    told = json.loads(builder.run("inspect", "--type", "image", name))["Docker"]["config"]
    assert told["User"] == "65532:65532"
    assert told["Entrypoint"] == ["/usr/local/bin/paperminder-ota"] and told["Cmd"] == ["serve"]
    assert set(told["ExposedPorts"]) == {"8000/tcp", "9000/tcp"}
    assert told["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/paperminder-ota", "healthcheck"]
    labels = told["Labels"]
    assert labels["org.opencontainers.image.revision"] == "0123456789"
    assert re.fullmatch(r"\d+\.\d+\.\d+", labels["org.opencontainers.image.version"])


def test_the_program_runs_in_it_as_nobody_on_a_root_that_is_read_only(image):
    builder, name = image
    container = builder.run("from", "--pull=never", name).strip()
    root = builder.run("mount", container).strip()
    files = {path.relative_to(root).as_posix() for path in pathlib.Path(root).rglob("*") if path.is_file()}
    assert "usr/local/bin/paperminder-ota" in files and not any(re.search(r"(^|/)(sh|bash|busybox|cargo)$", one) for one in files)

    def inside(*arguments):
        script = f'mount --bind "{root}" "{root}" && mount -o remount,ro,bind "{root}" && exec chroot --userspec=65532:65532 "{root}" "$@"'
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "-", "/usr/local/bin/paperminder-ota", *arguments],
            capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"], "RUST_LOG": "error"},
        )

    version = inside("--version")
    assert version.returncode == 0 and version.stdout.startswith("paperminder-ota "), version.stderr
    # The default command: it starts, reads its settings, and says which one is missing.
    serve = inside("serve")
    assert serve.returncode != 0 and "DATABASE_URL" in serve.stderr + serve.stdout
