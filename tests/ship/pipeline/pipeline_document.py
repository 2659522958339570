"""docs/pipeline.md: its files and commands."""

import re
import shlex

import yaml
from pipeline_world import ROOT

TEXT = (ROOT / "docs/pipeline.md").read_text()
BLOCKS = [
    (language, title, body)
    for language, title, body in re.findall(r"^```(\w+)(?: title=(\S+))?\n(.*?)^```$", TEXT, re.M | re.S)
]
FILES = {title: body for _, title, body in BLOCKS if title}
# Those that are to be pasted, in their order.
COMMANDS = [body for language, title, body in BLOCKS if language == "bash" and not title]

GITHUB = yaml.safe_load(FILES[".github/workflows/release.yml"])
GITLAB = yaml.safe_load(FILES[".gitlab-ci.yml"])


def settings(title):
    """The server's settings that the document shows for an issuer."""
    found = {}
    for line in FILES[title].splitlines():
        name, _, value = line.removeprefix("$ export ").partition("=")
        found[name] = shlex.split(value, comments=True)[0]
    assert set(found) == {"OIDC_ISSUER", "OIDC_AUDIENCE", "OIDC_ROLE_CLAIM", "OIDC_ROLES"}
    return found
