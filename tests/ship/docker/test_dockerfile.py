"""The image's recipe, as far as it can be held to the repository without an engine."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import dockerfile
import pytest
from e2b_dockerfile_utils import PatternMatcher

ROOT = pathlib.Path(__file__).resolve().parents[3]
DOCKERFILE = ROOT / "docker/Dockerfile"
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())


@pytest.fixture(scope="module")
def steps():
    """By BuildKit's own parser."""
    return dockerfile.parse_file(str(DOCKERFILE))


@pytest.fixture(scope="module")
def last(steps):
    """The instructions of the image itself."""
    begin = max(index for index, step in enumerate(steps) if step.cmd == "FROM")
    return {step.cmd: step.value for step in steps[begin:]}


def context():
    """Every file of the repository that the builder is sent."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = PatternMatcher([line for line in lines if line and not line.startswith("#")])
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    return {path for path in listed.split("\0") if path and not ignored.matches(path)}


def copied(steps):
    """What is copied out of the repository."""
    return [
        source
        for step in steps
        if step.cmd in ("COPY", "ADD") and not any(flag.startswith("--from") for flag in step.flags)
        for source in step.value[:-1]
    ]


def test_hadolint_has_nothing_to_say():
    tool = pathlib.Path(sys.executable).parent / "hadolint"
    assert tool.exists(), "hadolint is not in .tools/: run 'scripts/setup test'"
    done = subprocess.run([tool, "--no-color", str(DOCKERFILE)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_that_is_copied_is_sent(steps):
    sent = context()
    assert copied(steps)
    for source in copied(steps):
        assert (ROOT / source).exists(), f"{source} is not in the repository"
        assert any(path == source or path.startswith(f"{source}/") for path in sent), f".dockerignore leaves out {source}"


def test_everything_that_is_sent_is_copied(steps):
    """A folder that nobody copies only makes the context larger, and may hold what should not be in it."""
    sources = tuple(copied(steps))
    stray = {path for path in context() if path not in sources and not path.startswith(tuple(f"{one}/" for one in sources))}
    assert not stray


def test_no_build_nothing_of_yours_and_no_test_is_sent():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    ignored = PatternMatcher([line for line in lines if line and not line.startswith("#")])
    for path in (".git/config", "target/release/paperminder-ota", ".env", ".dev/key", ".tools/weed", "tests/it/main.rs", "id_rsa"):
        assert ignored.matches(path), path


def test_what_the_sources_include_is_sent():
    """`include_str!` and its like, and what the macros of sqlx read when they compile."""
    sent = context()
    for path in (ROOT / "src").rglob("*.rs"):
        for name in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', path.read_text()):
            included = (path.parent / name).resolve().relative_to(ROOT)
            assert str(included) in sent, f"{path} includes {included}"
    for folder in (".sqlx", "migrations", "src"):
        tracked = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        assert set(tracked.stdout.split()) <= sent, folder
    assert "sqlx::migrate!()" in (ROOT / "src/db/migrate.rs").read_text(), "migrations/ is where it looks"


def test_cargo_reads_the_package_as_it_is_sent(tmp_path):
    """Targets of tests and benchmarks are named in Cargo.toml, and their files are not sent."""
    for path in context():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    done = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )
    assert done.returncode == 0, done.stderr
    targets = json.loads(done.stdout)["packages"][0]["targets"]
    assert any(target["name"] == "paperminder-ota" and "bin" in target["kind"] for target in targets)


def arguments(steps):
    return dict(word.split("=", 1) for step in steps if step.cmd == "ARG" for word in step.value if "=" in word)


def test_the_compiler_is_the_one_that_the_package_asks_for(steps):
    image = arguments(steps)["RUST_IMAGE"]
    assert re.search(r"/rust:([\d.]+)-", image)[1] == CARGO["package"]["rust-version"]


def test_it_is_linked_with_the_libc_that_it_runs_with(steps):
    debian = {"bookworm": "debian12", "trixie": "debian13"}
    images = arguments(steps)
    release = images["RUST_IMAGE"].rsplit("-", 1)[1]
    assert debian[release] in images["RUNTIME_IMAGE"]
    # Rust's programs on glibc need libgcc, which `base` and `static` lack.
    assert "/cc-" in images["RUNTIME_IMAGE"]


def test_images_have_a_tag_and_a_registry(steps):
    for name in ("RUST_IMAGE", "RUNTIME_IMAGE"):
        image = arguments(steps)[name]
        assert re.fullmatch(r"[a-z.]+\.[a-z]+/[\w./-]+:[\w.-]+", image) and not image.endswith(":latest"), image


def test_it_is_built_as_the_readme_says(steps):
    runs = [step.value[0] for step in steps if step.cmd == "RUN"]
    builds = [run for run in runs if re.search(r"cargo (build|chef cook)", run)]
    assert len(builds) == 2
    for run in builds:
        # Others than these two would compile the dependencies twice.
        assert "--release --locked --no-default-features" in run and "--target" in run, run
    assert "SQLX_OFFLINE=true" in builds[1] and "PAPERMINDER_COMMIT=" in builds[1]
    assert "dev" in CARGO["features"]["default"], "--no-default-features leaves out what it should"
    for run in runs:
        if "cargo " in run and "prepare" not in run:
            step = next(step for step in steps if step.cmd == "RUN" and step.value[0] == run)
            assert any("type=cache" in flag for flag in step.flags), run


def test_another_commit_builds_no_dependency_again(steps):
    names = [(step.cmd, step.original) for step in steps]
    cook = next(index for index, (_, text) in enumerate(names) if "chef cook" in text)
    assert not any(cmd == "ARG" and "COMMIT" in text for cmd, text in names[:cook])
    assert not any(cmd == "COPY" and " src" in text for cmd, text in names[names.index(("FROM", "FROM chef AS build")):cook])


def test_both_processors_have_their_compiler(steps):
    text = DOCKERFILE.read_text()
    run = next(step.value[0] for step in steps if step.cmd == "RUN" and "TARGETARCH" in step.value[0])
    for arch, cpu in (("amd64", "x86_64"), ("arm64", "aarch64")):
        assert re.search(rf"{arch}\) cpu={cpu} ", run), arch
        assert f"CARGO_TARGET_{cpu.upper()}_UNKNOWN_LINUX_GNU_LINKER={cpu}-linux-gnu-gcc" in text
        assert f"CC_{cpu}_unknown_linux_gnu={cpu}-linux-gnu-gcc" in text


@pytest.mark.parametrize("arch, wanted", [("amd64", "x86_64"), ("arm64", "aarch64"), ("s390x", None), ("", None)])
def test_the_target_is_chosen(steps, tmp_path, arch, wanted):
    """The script of that step, with stand-ins for what it installs with."""
    run = next(step.value[0] for step in steps if step.cmd == "RUN" and "TARGETARCH" in step.value[0])
    bin = tmp_path / "bin"
    bin.mkdir()
    for name in ("apt-get", "rustup", "rm"):
        (bin / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (bin / name).chmod(0o755)
    (bin / "x86_64-linux-gnu-gcc").write_text("#!/bin/sh\n")
    (bin / "x86_64-linux-gnu-gcc").chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", run.replace(">/target", f">{tmp_path}/target")],
        env={"PATH": str(bin), "TARGETARCH": arch}, capture_output=True, text=True, timeout=20,
    )
    if wanted is None:
        assert done.returncode != 0 and "amd64 and arm64" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "target").read_text() == f"{wanted}-unknown-linux-gnu\n"
    # The native one is there; the other one comes from Debian and rustup.
    assert ("gcc-aarch64-linux-gnu libc6-dev-arm64-cross" in done.stdout) == (wanted == "aarch64")
    assert ("rustup target add" in done.stdout) == (wanted == "aarch64")


def test_a_label_cannot_tell_another_version(steps, tmp_path):
    run = next(step.value[0] for step in steps if step.cmd == "RUN" and "PAPERMINDER_COMMIT" in step.value[0])
    check = run.split("SQLX_OFFLINE")[0]
    for version, code in (("", 0), (CARGO["package"]["version"], 0), ("9.9.9", 1)):
        done = subprocess.run(["/bin/sh", "-c", check + " true"], cwd=ROOT, env={"PATH": "/usr/bin:/bin", "VERSION": version},
                              capture_output=True, text=True, timeout=20)
        assert done.returncode == code, (version, done.stderr)


def test_the_image_runs_as_a_number_without_a_shell(last):
    assert last["USER"] == ("65532:65532",)
    assert "RUN" not in last and "VOLUME" not in last
    program = "/usr/local/bin/paperminder-ota"
    assert last["ENTRYPOINT"] == (program,)
    assert last["COPY"][-1] == program
    assert last["CMD"] == ("serve",)
    assert last["HEALTHCHECK"] == ("CMD", program, "healthcheck")


def test_commands_of_the_image_are_ones_of_the_program(last, program):
    help = subprocess.run([program, "--help"], capture_output=True, text=True, check=True, timeout=30).stdout
    known = set(re.findall(r"^  (\w+) ", help, re.M))
    assert {last["CMD"][0], last["HEALTHCHECK"][2]} <= known


def test_ports_are_the_defaults_of_the_program(last):
    settings = (ROOT / "src/config/settings.rs").read_text()
    defaults = [re.search(rf'"{name}", "0\.0\.0\.0:(\d+)"', settings)[1] for name in ("LISTEN_ADDR", "INTERNAL_ADDR")]
    assert list(last["EXPOSE"]) == defaults


def test_labels_say_what_is_in_it(last):
    labels = dict(zip(last["LABEL"][::2], last["LABEL"][1::2]))
    prefix = "org.opencontainers.image."
    assert labels[prefix + "version"].strip('"') == "${VERSION}" and labels[prefix + "revision"].strip('"') == "${COMMIT}"
    assert labels[prefix + "licenses"].strip('"') == CARGO["package"]["license"]
    assert {prefix + word for word in ("title", "description", "source", "documentation")} <= set(labels)
