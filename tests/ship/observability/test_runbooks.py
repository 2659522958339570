"""What the runbooks tell somebody to type at night must work."""

import json
import os
import re
import shlex
import subprocess
from urllib.parse import parse_qs, urlsplit

import pytest

from sources import ALERTS, ROOT, RUNBOOKS, alerts

PAGES = sorted(RUNBOOKS.glob("*.md"))
OPENAPI = json.loads((ROOT / "openapi.json").read_text())
# Endpoints beside REST.
OTHERS = {"/docs"}


def blocks(page):
    """What is to be typed, with continued lines joined."""
    for block in re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text(), re.S | re.M):
        yield block.replace("\\\n", " ")


def operation(path):
    """The path's entry in the OpenAPI document, with anything for a parameter."""
    for known, entry in OPENAPI["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", known), path):
            # A literal path first: /api/firmware/latest is no version.
            if path in OPENAPI["paths"]:
                return OPENAPI["paths"][path]
            return entry
    return None


def asked(page):
    """(method, URL below $OTA, body) of every request of a page."""
    for block in blocks(page):
        for line in block.splitlines():
            for command in re.findall(r"curl [^|;\n]*?\$OTA[^|;\n]*", line):
                words = shlex.split(command.rstrip(") ").replace("$(", ""), comments=True)
                url = next(word for word in words if word.startswith("$OTA"))
                method = words[words.index("-X") + 1] if "-X" in words else "GET"
                body = words[words.index("-d") + 1] if "-d" in words else None
                yield method.lower(), url.removeprefix("$OTA"), body
    for method, url in re.findall(r"`(GET|POST|PATCH|PUT|DELETE) \$?(?:OTA)?(/[^`\s]*)", page.read_text()):
        yield method.lower(), url, None


def resolve(schema):
    while "$ref" in schema:
        schema = OPENAPI["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_requests_are_ones_that_the_server_knows(page):
    for method, url, body in asked(page):
        split = urlsplit(url)
        if split.path in OTHERS:
            continue
        entry = operation(re.sub(r"\$\w+|<\w+>", "7", split.path))
        assert entry and method in entry, f"{page.name}: there is no {method.upper()} {split.path}"
        parameters = {one["name"]: resolve(one.get("schema", {})) for one in entry[method].get("parameters", [])}
        for name, values in parse_qs(split.query, strict_parsing=bool(split.query)).items():
            assert name in parameters, f"{page.name}: {split.path} takes no {name}"
            words = parameters[name].get("enum")
            assert not words or set(values) <= set(words), f"{page.name}: {split.path} takes no {name}={values}"
        if body:
            schema = resolve(entry[method]["requestBody"]["content"]["application/json"]["schema"])
            assert set(json.loads(body)) <= set(schema["properties"]), f"{page.name}: {body}"


def test_there_are_requests_to_look_at():
    assert sum(len(list(asked(page))) for page in PAGES) > 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_its_parts(page):
    text = page.read_text()
    if page.stem == "README":
        return
    parts = re.findall(r"^## (.*)$", text, re.M)
    assert parts == ["What it means", "How bad", "First look", "Causes and remedies", "Wake somebody"]
    assert text.startswith(f"# {page.stem}\n")
    severity = next(rule["labels"]["severity"] for _, rule in alerts() if rule["alert"] == page.stem)
    assert f"*{severity}*" in text, f"the alert is {severity}"


def test_the_index_has_every_page_once_with_its_severity():
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \|", (RUNBOOKS / "README.md").read_text(), re.M)
    assert all(name == file for name, file, _ in rows)
    assert [(name, severity) for name, _, severity in rows] == [
        (rule["alert"], rule["labels"]["severity"]) for _, rule in alerts()
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_settings_are_ones_of_the_server():
    settings = (ROOT / "src/config/settings.rs").read_text() + (ROOT / "src/config/parts.rs").read_text()
    foreign = {"DATABASE_URL", "HTTP"}
    for page in PAGES:
        for name in re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", page.read_text()):
            assert name in foreign or f'"{name}"' in settings, f"{page.name} names {name}"


def test_metrics_are_ones_of_the_alerts_or_of_the_server():
    known = ALERTS.read_text() + (ROOT / "src/telemetry/metrics.rs").read_text() + (ROOT / "src/stats/figures.rs").read_text()
    for page in PAGES:
        for name in re.findall(r"paperminder_[a-z_]+[a-z]", page.read_text()):
            assert name in known, f"{page.name} names {name}"


def test_shell_is_shell(tmp_path):
    for page in PAGES:
        script = "\n".join(blocks(page)).replace("<pod>", "pod").replace("<pid>", "1")
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, f"{page.name}: {done.stderr}"


def test_sql_runs_on_the_real_schema(program, tmp_path):
    statements = [
        statement for page in PAGES for statement in re.findall(r'psql "\$DATABASE_URL" -c "([^"]+)"', page.read_text())
    ]
    assert len(statements) > 8
    (tmp_path / "all.sql").write_text("\\set ON_ERROR_STOP on\n" + ";\n".join(statements) + ";\n")
    done = subprocess.run(
        [ROOT / "scripts/with-postgres", "bash", "-euc", '"$1" migrate >/dev/null && psql "$DATABASE_URL" -f "$2"', "-",
         program, tmp_path / "all.sql"],
        capture_output=True, text=True, timeout=120, env=os.environ | {"RUST_LOG": "error"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" row") == len(statements), done.stdout


def looks(page):
    """Commands of one line that only look, and that only ask REST."""
    for block in blocks(page):
        for line in block.splitlines():
            line = line.strip()
            if line.startswith("curl") and "$OTA" in line and " -X " not in line and not ("$printer" in line or line.endswith("do")):
                yield line


def test_first_looks_look(server, tmp_path):
    lines = [(page.name, line) for page in PAGES for line in looks(page)]
    assert len(lines) > 15
    for name, line in lines:
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", line.replace("rollouts/7", "rollouts/1")],
            cwd=tmp_path, capture_output=True, text=True, timeout=30,
            env=os.environ | {"OTA": server.base, "KEY": server.key, "N": "1"},
        )
        # -sv writes to standard error.
        assert done.returncode == 0 and ("-sv" in line or not done.stderr), f"{name}: {line}\n{done.stderr}"


def test_labels_and_names_are_those_of_the_chart():
    templates = "".join(path.read_text() for path in (ROOT / "helm/paperminder-ota/templates").rglob("*.*"))
    components = {name for page in PAGES for name in re.findall(r"app\.kubernetes\.io/component=([\w-]+)", page.read_text())}
    assert {"server", "migrate"} <= components
    for name in components:
        assert re.search(rf'component: {name}\b|component" "{name}"', templates), f"no object of the chart is a {name}"
