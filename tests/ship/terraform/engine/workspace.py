"""A copy of terraform/ that runs without a registry: what `terraform init` would have fetched is made here.

The modules of the registry are replaced by ones with the same arguments and outputs (modules.json), which keep what they
were given in a `terraform_data`, so that a test can look at it; the AWS provider by provider.py. Terraform is real.
"""
import collections
import functools
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys

import hcl2

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[3]
TERRAFORM = ROOT / "terraform"
MODULES = json.loads((HERE / "modules.json").read_text())["modules"]
SCHEMA = json.loads((HERE / "aws-schema.json").read_text())
# Longer than any command takes, on a machine with other things to do.
TIMEOUT = 120


@functools.cache
def parse(folder):
    """All blocks of a folder's .tf files: {"variable": {name: {...}}, "module": {...}, ...}."""
    merged = {}
    for path in sorted(folder.glob("*.tf")):
        for kind, blocks in hcl2.loads(path.read_text()).items():
            if isinstance(blocks, list):
                merged.setdefault(kind, []).extend(blocks)
    return plain(merged)


def plain(value):
    """Without the quotes that python-hcl2 leaves around literal texts, and its own marks."""
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items() if not str(key).startswith("__")}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


def named(folder, kind):
    """Blocks with one label, by it."""
    return {name: body for block in parse(folder).get(kind, []) for name, body in block.items()}


def stubs(description):
    """Two modules in JSON, which Terraform reads as well: the outer one keeps what it was given, as it was given; the
    inner one has the real one's types, into which Terraform converts it, or says why not."""
    types, anything, given = {}, {}, {}
    for name, of in description["variables"].items():
        default = {} if name in description["required"] else {"default": None}
        types[name] = {"type": of} | default
        anything[name] = {"type": "any"} | default
        given[name] = f"${{var.{name}}}"
    outputs = {name: {"value": "${" + value + "}"} for name, value in description["outputs"].items()}
    known = [f"try(length(var.{name}), var.{name} == null ? 0 : var.{name} ? 1 : 2)" for name in description["known"]]
    outer = {
        "variable": anything,
        # Outputs are unknown while planning, as ids and ARNs are that the cloud makes up.
        "resource": {
            "terraform_data": {
                "given": {"input": given},
                "counted": {"count": "${0 * sum([" + ", ".join(known) + "])}"},
                "made": {"input": {name: f"${{module.typed.{name}}}" for name in outputs}},
            }
        },
        "module": {"typed": {"source": "./typed"} | given},
        "output": {name: {"value": f"${{terraform_data.made.output.{name}}}"} for name in outputs},
    }
    return outer, {"variable": types, "output": outputs}


Done = collections.namedtuple("Done", "returncode stdout stderr")


class Terraform:
    """A process that runs one command after the other."""

    def __init__(self, home, attach):
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TF_CLI_CONFIG_FILE": os.devnull,
            "CHECKPOINT_DISABLE": "1",
            "TF_REATTACH_PROVIDERS": attach,
        }
        command = [sys.executable, str(HERE / "terraform.py"), "--serve"]
        self.process = subprocess.Popen(command, env=environment, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, words):
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], TIMEOUT)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            raise AssertionError(f"terraform {' '.join(words)}: no answer in {TIMEOUT} s, or it died")
        return json.loads(line)

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Workspace:
    def __init__(self, folder, attach):
        self.folder = folder / "terraform"
        self.terraform = Terraform(folder, attach)
        shutil.copytree(TERRAFORM, self.folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        self.stubs = folder / "stubs"
        for source, description in MODULES.items():
            path = self.stub_of(source)
            (path / "typed").mkdir(parents=True)
            outer, typed = stubs(description)
            (path / "main.tf.json").write_text(json.dumps(outer))
            (path / "typed" / "main.tf.json").write_text(json.dumps(typed))

    def stub_of(self, source):
        return self.stubs / source.replace("/", "-")

    def installed(self, folder, prefix=""):
        """What stands in .terraform/modules/modules.json after an init: each module call, and those within."""
        for name, call in named(folder, "module").items():
            source = call["source"]
            entry = {"Key": prefix + name, "Source": source}
            if source.startswith("."):
                path = (folder / source).resolve()
                yield entry | {"Dir": str(path)}
                yield from self.installed(path, prefix + name + ".")
            else:
                path = str(self.stub_of(source))
                version = MODULES[source]["version"]
                yield entry | {"Source": f"registry.terraform.io/{source}", "Version": version, "Dir": path}
                yield {"Key": f"{prefix}{name}.typed", "Source": "./typed", "Dir": f"{path}/typed"}

    def init(self, where):
        folder = self.folder / where
        path = folder / ".terraform" / "modules" / "modules.json"
        if path.exists():
            return folder
        entries = [{"Key": "", "Source": "", "Dir": "."}, *self.installed(folder)]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"Modules": entries}))
        return folder

    def run(self, where, *words, code=0):
        """(exit code, standard output, standard error); an error unless the code is the one expected, or none is."""
        folder = self.init(where)
        done = Done(*self.terraform.ask([f"-chdir={folder}", *words]))
        if code is not None and done.returncode != code:
            raise AssertionError(f"terraform {' '.join(words)} in {where}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    @functools.cache
    def applied(self, where):
        """Applied once, whoever asks first."""
        self.run(where, "apply", "-auto-approve", "-no-color")
        return where

    @functools.cache
    def state(self, where):
        """The last state of what is applied once."""
        return json.loads(self.run(where, "show", "-json").stdout)["values"]

    @functools.cache
    def given(self, where):
        """What each module of the registry was given, by its address without the root's, as in storage.module.bucket."""
        found = {}

        def walk(module):
            for resource in module.get("resources", []):
                if resource["address"].endswith(".terraform_data.given"):
                    address = resource["address"].removeprefix("module.paperminder_ota.").removesuffix(".terraform_data.given")
                    found[address.replace("[0]", "")] = resource["values"]["input"]
            for child in module.get("child_modules", []):
                walk(child)

        walk(self.state(where)["root_module"])
        return found

    def root(self, name, text):
        """Another root module, written by a test."""
        folder = self.folder / "cases" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "main.tf").write_text(text)
        return folder.relative_to(self.folder)
