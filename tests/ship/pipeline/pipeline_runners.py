"""GitHub's and GitLab's runners, as far as docs/pipeline.md uses them: jobs in order, each step with bash as they run it.
Whatever they do not know fails the test, instead of being skipped."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pipeline_document as document
from pipeline_world import SIZE, program

QUICK = {
    "OTA_POLL_SECONDS": "0.3",
    "OTA_CANARY_PLAN": '{"rollout_type": "gradual", "steps": [{"percentage": 50, "soak": "1s", "min_sample": 2},'
    ' {"percentage": 100, "min_sample": 2}]}',
    "OTA_CANARY_WAIT_SECONDS": "25",
    "OTA_STABLE_PLAN": '{"rollout_type": "gradual", "steps": [{"percentage": 30, "soak": "1s", "min_sample": 2},'
    ' {"percentage": 100, "min_sample": 2}]}',
    "OTA_STABLE_WAIT_SECONDS": "25",
    "OTA_BACK_WAIT_SECONDS": "25",
    "OTA_BACK_ENOUGH": "100",
    "OTA_STABLE_ENOUGH": "100",
}
# Longer than any step of a test may take.
LIMIT = 45


class Skipped(Exception):
    """A job that is not run, because one before it failed."""


class Runner:
    """A repository with the document's files, and a machine with stand-ins for what builds."""

    def __init__(self, world, folder, seed=1):
        self.world, self.folder = world, folder
        self.secrets = {world.admin, world.issuer.request_token}
        self.keys = {}
        self.variables = QUICK | {"OTA_URL": world.url}
        self.artifacts = {}
        self.output = {}
        self.repository = folder / "repository"
        (self.repository / "ci").mkdir(parents=True)
        script = self.repository / "ci/ota.sh"
        script.write_text(document.FILES["ci/ota.sh"])
        script.chmod(0o755)
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.calls = folder / "calls"
        self.calls.write_text("")
        self.builds(seed)
        for name in ("pip", "apt-get"):
            self.stand_in(name, f'echo "{name} $*" >>"{self.calls}"')
        # The arguments of curl are there for everybody to see.
        self.stand_in("curl", f'printf "curl %s\\n" "$*" >>"{self.calls}"\nexec "{shutil.which("curl")}" "$@"')

    def stand_in(self, name, body):
        path = self.bin / name
        path.write_text(f"#!/bin/bash\nset -eu\n{body}\n")
        path.chmod(0o755)

    def builds(self, seed):
        """What `pio` writes from now on."""
        self.stand_in(
            "pio",
            f"""[[ $* == 'run -e esp8266' ]]
grep -q '^#define FIRMWARE_VERSION "[0-9]*\\.[0-9]*\\.[0-9]*"$' include/version.h
mkdir -p .pio/build/esp8266
"{program()}" image --seed {seed} --size {SIZE} >.pio/build/esp8266/firmware.bin""",
        )

    def secret(self, text):
        self.secrets.add(text)
        return text

    def bash(self, name, arguments, script, variables, folder, cut=None):
        """Runs one script; `cut` kills it and all that it started as soon as its output has this."""
        file = self.folder / f"{name}.sh"
        file.write_text(script)
        log = self.folder / f"{name}.log"
        environment = {
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "CI": "true",
        } | variables
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", *arguments, str(file)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            until = time.monotonic() + LIMIT
            killed = False
            while process.poll() is None:
                if cut and re.search(cut, log.read_text(errors="replace")) or time.monotonic() > until:
                    os.killpg(process.pid, signal.SIGKILL)
                    killed = True
                    process.wait(timeout=5)
                time.sleep(0.05)
        text = log.read_text(errors="replace")
        assert time.monotonic() < until, f"{name} takes too long:\n{text}"
        assert killed == bool(cut), f"{name} ended before it could be cut off:\n{text}"
        self.output[name] = self.output.get(name, "") + text
        self.check_secrets(name, text)
        return process.returncode

    def check_secrets(self, name, text):
        calls = self.calls.read_text()
        for secret in self.secrets | set(self.world.issuer.given):
            assert secret not in text, f"{name} writes a secret into its log:\n{text}"
            assert secret not in calls, f"{name} shows a secret among curl's arguments"

    def ota(self, *words, **variables):
        """One step of ci/ota.sh by hand: its exit code and its output."""
        folder = self.folder / "desk"
        if not folder.exists():
            shutil.copytree(self.repository, folder)
        variables = {"OTA_URL": self.world.url, "OTA_POLL_SECONDS": "0.2", "OTA_WAIT_SECONDS": "20"} | variables
        self.output.pop("desk", None)
        code = self.bash("desk", ["--noprofile", "--norc", "-e"], f"ci/ota.sh {' '.join(words)}\n", variables, folder)
        return code, self.output["desk"]

    def build(self, seed):
        """An image for `ota`, with its checksum."""
        (self.folder / "desk").mkdir(exist_ok=True)
        shutil.copytree(self.repository, self.folder / "desk", dirs_exist_ok=True)
        self.builds(seed)
        script = "mkdir -p include; echo '#define FIRMWARE_VERSION \"1.0.0\"' >include/version.h\n"
        script += "pio run -e esp8266; cp .pio/build/esp8266/firmware.bin .; sha256sum firmware.bin >firmware.bin.sha256\n"
        assert self.bash("build", ["-e"], script, {}, self.folder / "desk") == 0

    def pipeline(self, tagged, /, only=None, cut=None, **inputs):
        """Runs the jobs of an event; `only` runs these again and keeps what the others left. Returns what became of each:
        an exit code, or None where it was skipped."""
        if only is None:
            self.artifacts = {}
            self.results = {}
        self.output = {}
        for job in only or self.jobs():
            workspace = self.folder / "workspace"
            shutil.rmtree(workspace, ignore_errors=True)
            workspace.mkdir()
            try:
                self.results[job] = self.job(job, tagged, workspace, (cut or {}).get(job), inputs)
            except Skipped:
                self.results[job] = None
        return self.results


def only(known, found, what):
    assert set(found) <= set(known), f"{what} has {set(found) - set(known)}, which the test does not know"


class GitHub(Runner):
    """Push of a tag, or a run by hand when there are inputs."""

    VARS = {"OTA_URL", "OTA_POLL_SECONDS"} | {
        f"OTA_{job}_{name}" for job in ("CANARY", "STABLE", "BACK") for name in ("PLAN", "ENOUGH", "WAIT_SECONDS")
    }
    SUBJECT = "repo:acme@123456/printer@456789:environment:{}"

    def jobs(self):
        return list(document.GITHUB["jobs"])

    def term(self, text, context):
        text = text.strip()
        if literal := re.fullmatch(r"'((?:[^']|'')*)'", text, re.S):
            return literal[1].replace("''", "'")
        kind, _, name = text.partition(".")
        assert kind in context, f"${{{{ {text} }}}} is an expression that the test does not know"
        assert name in context[kind], f"{text} is not known"
        return context[kind][name]

    def value(self, text, context):
        sides = re.split(r"\|\|(?=(?:[^']*'[^']*')*[^']*$)", text)
        if len(sides) > 1:
            return next(filter(None, (self.value(side, context) for side in sides)), "")
        sides = re.split(r"==(?=(?:[^']*'[^']*')*[^']*$)", text)
        if len(sides) == 2:
            return self.term(sides[0], context) == self.term(sides[1], context)
        return self.term(text, context)

    def resolve(self, text, context):
        return re.sub(r"\$\{\{(.*?)\}\}", lambda found: str(self.value(found[1], context)), str(text), flags=re.S)

    def job(self, name, tagged, workspace, cut, inputs):
        workflow = document.GITHUB
        # YAML 1.1 reads `on` as true.
        only({"name", "run-name", True, "concurrency", "permissions", "defaults", "env", "jobs"}, workflow, "the workflow")
        assert workflow["defaults"] == {"run": {"shell": "bash"}}
        job = workflow["jobs"][name]
        known = {"if", "needs", "runs-on", "timeout-minutes", "environment", "permissions", "steps"}
        only(known, job, name)
        declared = workflow[True]["workflow_dispatch"]["inputs"]
        only(declared, inputs, "inputs")
        given = {key: str(inputs.get(key) or (inputs and declared[key].get("default")) or "") for key in declared}
        environment = job.get("environment", "")
        context = {
            "github": {
                "event_name": "workflow_dispatch" if inputs else "push",
                "ref_name": "main" if inputs else f"v{tagged}",
                "repository": "acme/printer",
                "sha": "5f3c1d9e2b7a4860c1d2e3f405162738495a6b7c",
                "run_id": "1",
            },
            "inputs": given,
            "vars": {known: self.variables.get(known, "") for known in self.VARS},
            "secrets": {"OTA_KEY": self.keys.get(environment, "")},
        }
        if "if" in job and not self.value(job["if"], context):
            raise Skipped
        needs = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
        if any(self.results[needed] != 0 for needed in needs):
            raise Skipped
        assert job["timeout-minutes"] <= 360
        variables = {"GITHUB_ACTIONS": "true", "RUNNER_TEMP": str(self.folder)}
        if job.get("permissions", workflow["permissions"]).get("id-token") == "write":
            issuer = self.world.issuer
            issuer.claims = {"sub": self.SUBJECT.format(environment)}
            variables |= {
                "ACTIONS_ID_TOKEN_REQUEST_URL": issuer.request_url,
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": issuer.request_token,
            }
        resolved = lambda pairs: {key: self.resolve(text, context) for key, text in pairs.items()}  # noqa: E731
        for step in job["steps"]:
            only({"name", "uses", "with", "env", "run"}, step, f"a step of {name}")
            if "uses" in step:
                self.action(step["uses"], resolved(step.get("with", {})), workspace)
                continue
            assert "${{" not in step["run"], "what somebody types must not become a part of a script"
            code = self.bash(
                name,
                ["--noprofile", "--norc", "-eo", "pipefail"],
                step["run"],
                variables | resolved(workflow["env"]) | resolved(step.get("env", {})),
                workspace,
                cut,
            )
            if code:
                return code
        return 0

    def action(self, uses, given, workspace):
        action = uses.partition("@")[0]
        if action == "actions/checkout":
            only(set(), given, uses)
            shutil.copytree(self.repository, workspace, dirs_exist_ok=True)
        elif action == "actions/setup-python":
            only({"python-version"}, given, uses)
        elif action == "actions/upload-artifact":
            only({"name", "path", "if-no-files-found"}, given, uses)
            self.artifacts[given["name"]] = {
                pathlib.Path(path).name: (workspace / path).read_bytes() for path in given["path"].split()
            }
        elif action == "actions/download-artifact":
            only({"name"}, given, uses)
            for path, data in self.artifacts[given["name"]].items():
                (workspace / path).write_bytes(data)
        else:
            raise AssertionError(f"{uses} is an action that the test does not know")


class GitLab(Runner):
    """The pipeline of a tag; manual jobs are clicked where they are named."""

    SUBJECT = "project_path:acme/printer:ref_type:tag:ref_protected:true"

    def jobs(self):
        # A job without a click is not run: `back` is only by name.
        return [name for name in self.all() if not self.merged(name).get("allow_failure")]

    def all(self):
        stages = document.GITLAB["stages"]
        names = [name for name in document.GITLAB if name not in {"stages", "workflow", "variables"} and name[0] != "."]
        return sorted(names, key=lambda name: stages.index(self.merged(name)["stage"]))

    def merged(self, name):
        job = document.GITLAB[name]
        base = document.GITLAB[job["extends"]] if "extends" in job else {}
        return {**base, **job}

    def expand(self, text, variables):
        return re.sub(r"\$\{?([A-Z_]+)\}?", lambda found: variables.get(found[1], ""), str(text))

    def job(self, name, tagged, workspace, cut, inputs):
        only({"stages", "workflow", "variables", ".ota", *self.all()}, document.GITLAB, ".gitlab-ci.yml")
        assert document.GITLAB["workflow"] == {"rules": [{"if": "$CI_COMMIT_TAG =~ /^v[0-9]/"}]}
        job = self.merged(name)
        known = {"extends", "stage", "image", "timeout", "interruptible", "id_tokens", "before_script", "needs"}
        known |= {"resource_group", "environment", "variables", "script", "artifacts", "when", "allow_failure"}
        only(known, job, name)
        if any(self.results.get(needed) != 0 for needed in job.get("needs", [])):
            raise Skipped
        shutil.copytree(self.repository, workspace, dirs_exist_ok=True)
        for needed in job.get("needs", []):
            for path, data in self.artifacts.get(needed, {}).items():
                (workspace / path).write_bytes(data)
        predefined = {
            "GITLAB_CI": "true",
            "CI_COMMIT_TAG": f"v{tagged}",
            "CI_COMMIT_SHA": "5f3c1d9e2b7a4860c1d2e3f405162738495a6b7c",
            "CI_PROJECT_PATH": "acme/printer",
            "CI_PIPELINE_ID": "1",
        }
        own = document.GITLAB["variables"]
        only(own, set(inputs), "what was typed in")
        # The project's variables and those of a run go before those of the file, the job's own before the file's.
        environment = job.get("environment", {}).get("name", "")
        above = self.variables | inputs | {"OTA_KEY": self.keys.get(environment, "")}
        variables = predefined | {key: str(text) for key, text in own.items()}
        variables |= {key: str(text) for key, text in job.get("variables", {}).items()}
        variables |= above
        for _ in range(3):
            variables = {
                key: text if key in above else self.expand(text, variables) for key, text in variables.items()
            }
        for token, said in job.get("id_tokens", {}).items():
            audience = self.expand(said["aud"], variables)
            variables[token] = self.world.issuer.token(audience, sub=self.SUBJECT)
        script = "\n".join(["set -eo pipefail", *job.get("before_script", []), *job["script"]]) + "\n"
        code = self.bash(name, [], script, variables, workspace, cut)
        if code == 0 and "artifacts" in job:
            only({"paths", "expire_in"}, job["artifacts"], "artifacts")
            self.artifacts[name] = {path: (workspace / path).read_bytes() for path in job["artifacts"]["paths"]}
        return code
