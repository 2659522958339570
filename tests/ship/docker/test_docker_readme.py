"""docker/README.md says what the files do."""

import pathlib
import re
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
README = (ROOT / "docker/README.md").read_text()
COMPOSE = (ROOT / "docker/compose.yaml").read_text()


def test_every_variable_has_its_row():
    used = set(re.findall(r"\$\{(\w+)", COMPOSE))
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", README.split("### Real printers")[0].split("## Profiles")[1], re.M)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)} - {"printers", "replicas", "observability"}
    assert named == used


def test_every_profile_has_its_row():
    used = {name for service in yaml.safe_load(COMPOSE)["services"].values() for name in service.get("profiles", [])}
    assert set(re.findall(r"^\| `(\w+)` \|", README.split("## Profiles")[1].split("```")[0], re.M)) == used


def test_every_published_port_is_told():
    published = set(re.findall(r'- "(?:\$\{BIND:-127\.0\.0\.1\}|127\.0\.0\.1):(\d+):', COMPOSE))
    told = set(re.findall(r"`(?:localhost)?:(\d+)`", README))
    assert published <= told, published - told


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / "docker" / target).exists(), target


def test_bases_are_those_of_the_dockerfile():
    recipe = (ROOT / "docker/Dockerfile").read_text()
    images = re.findall(r"^ARG \w+_IMAGE=(\S+)$", recipe, re.M)
    assert len(images) == 2
    for image in images:
        assert README.count(image) >= 1 and README.count(image.split("/")[-1]) >= 2, image


@pytest.mark.parametrize("command", ["migrate", "key", "doctor", "healthcheck", "image"])
def test_commands_are_the_programs(command, program):
    assert command in README
    help = subprocess.run([program, "--help"], capture_output=True, text=True, check=True, timeout=30).stdout
    assert re.search(rf"^  {command} ", help, re.M)


def test_the_version_is_found_as_the_readme_says():
    line = re.search(r"version=\$\((sed .*?Cargo\.toml)\)", README)[1]
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout), done.stderr
