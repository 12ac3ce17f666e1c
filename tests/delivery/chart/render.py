"""The chart as Helm renders it, and what others say about that."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy/helm/sidelight"
DEFAULTS = CHART / "ci/default-values.yaml"
# The oldest version of Kubernetes that the chart takes is enough for Helm; the API server's own schemas judge.
KUBERNETES = "1.30"
FOLDERS = [Path(os.environ["BINARIES"])] if "BINARIES" in os.environ else [ROOT / "target/release", ROOT / "target/debug"]
# Of a project whose definitions are in no module that is served.
WITHOUT_SCHEMA = ["SecurityContextConstraints"]


def run(*command, **options):
    """What a command prints; what it complains of is the error."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise AssertionError(f"{' '.join(str(part) for part in command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


@cache
def program(name):
    return Path(run(ROOT / "tests/delivery/build", "--where", name).strip()) / name


@cache
def kubectl():
    """That of the tests' cluster."""
    return Path(run(ROOT / "tests/cluster/build").splitlines()[0]) / "kubectl"


@cache
def schemas():
    return run(ROOT / "tests/delivery/schemas", "--where").strip()


def binary(name):
    """One of ours."""
    found = [path for folder in FOLDERS if (path := folder / name).exists()]
    if not found:
        raise AssertionError(f"{name} is not built: cargo build -p sidelight-agent -p sidelight-injector")
    return found[0]


def helm(*arguments):
    return run(program("helm"), *arguments)


def template(*arguments, namespace="sidelight", defaults=True, chart=CHART):
    """The text that Helm renders."""
    values = ["--values", DEFAULTS] if defaults else []
    return helm("template", "sidelight", chart, "--namespace", namespace, "--kube-version", KUBERNETES, *values, *arguments)


def notes(*arguments):
    """What Helm prints after an installation. It does so with a cluster only: a template that includes the notes needs none."""
    with tempfile.TemporaryDirectory() as folder:
        chart = shutil.copytree(CHART, Path(folder) / "sidelight")
        shown = chart / "templates/notes.yaml"
        shown.write_text('notes: |{{ include (print .Template.BasePath "/NOTES.txt") . | nindent 2 }}')
        text = template("--show-only", "templates/notes.yaml", *arguments, chart=chart)
    return yaml.safe_load(text)["notes"]


def settings(**values):
    """Arguments of Helm; `__` stands for a dot."""
    return [part for key, value in values.items() for part in ("--set", f"{key.replace('__', '.')}={value}")]


class Objects(list):
    """Rendered objects."""

    def __init__(self, text):
        super().__init__(object for object in yaml.safe_load_all(text) if object)

    def of(self, kind, name=""):
        """Those of a kind, whose names end so."""
        return [object for object in self if object["kind"] == kind and object["metadata"]["name"].endswith(name)]

    def only(self, kind, name=""):
        found = self.of(kind, name)
        assert len(found) == 1, f"{len(found)} of {kind} {name}"
        return found[0]

    def pod(self, component):
        """The pod template of a component."""
        return self.only("DaemonSet" if component == "agent" else "Deployment")["spec"]["template"]

    def container(self, component):
        return self.pod(component)["spec"]["containers"][0]

    def config(self, component):
        """The text of a component's configuration, as its pods mount it."""
        volumes = self.pod(component)["spec"]["volumes"]
        name = next(volume["configMap"]["name"] for volume in volumes if volume["name"] == "config")
        (text,) = self.only("ConfigMap", name)["data"].values()
        return text


def render(*arguments, **options):
    return Objects(template(*arguments, **options))


def checked(text, component, asks=True):
    """Has our own program read a configuration; it must have no mistake. Gives what the program says: of the injector, the pod as
    it injects it, if it asks."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        if component == "agent":
            # As in a pod. What its environment and secrets hold is not at hand here.
            return run(binary("sidelight"), "check", file.name, env={"NODE_NAME": "node-1"})
        pod = ASKING if asks else ASKING.replace('inject: "true"', 'inject: "false"')
        return json.dumps(yaml.safe_load(run(binary("sidelight-injector"), "inject", "-f", "-", "--config", file.name, input=pod)))


ASKING = """apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations:
    sidelight.dev/inject: "true"
    sidelight.dev/inject.logs: /logs/*.log
    sidelight.dev/metrics: "true"
    sidelight.dev/metrics.port: "9090"
spec: { containers: [{ name: web, image: web }] }
"""


def judge(folder):
    """Has kubeconform compare files with the schemas; gives what it complains of."""
    location = schemas() + "/{{.ResourceKind}}{{.KindSuffix}}.json"
    done = subprocess.run(
        [program("kubeconform"), "-strict", "-skip", ",".join(WITHOUT_SCHEMA), "-schema-location", location, str(folder)],
        capture_output=True, text=True)
    return re.sub(r"problem validating schema.*?jsonschema validation failed with \S+", "", done.stdout + done.stderr)
