"""What is made from the chart, and what stands beside it."""

import contextlib
import json
import os
import re
import tempfile
import unittest
from pathlib import Path

import yaml

from .render import CHART, DEFAULTS, ROOT, Objects, binary, checked, helm, judge, kubectl, render, run
from .test_matrix import MATRIX

KUSTOMIZE = ROOT / "deploy/kustomize"
DEVTRON = ROOT / "deploy/devtron"
# Only Helm has them.
OF_HELM = ("app.kubernetes.io/managed-by", "helm.sh/chart")


@contextlib.contextmanager
def temporary(text):
    """A file with this text."""
    with directory() as folder:
        path = folder / "file.yaml"
        path.write_text(text)
        yield path


@contextlib.contextmanager
def directory():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def kustomized(folder):
    return Objects(run(kubectl(), "kustomize", KUSTOMIZE / folder))


def compared(objects):
    """Objects by kind and name, without what differs between Helm and Kustomize: hashes in names and labels of their own."""
    found = {}
    for object in objects:
        text = json.dumps(object)
        text = re.sub(r"sidelight-(agent|injector)(-config)?-[0-9a-z]{10}\b(?!-)", r"sidelight-\1-CONFIG", text)
        text = re.sub(r"sidelight-(agent|injector)-config\b", r"sidelight-\1-CONFIG", text)
        object = json.loads(text)
        labels = object["metadata"].get("labels", {})
        remove(object, OF_HELM)
        if object["kind"] == "ConfigMap":
            labels.clear()
        if object["kind"] not in ("Namespace", "Pod") and "helm.sh/hook" not in object["metadata"].get("annotations", {}):
            found[object["kind"], object["metadata"]["name"]] = object
    return found


def remove(tree, keys):
    for value in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(value, (dict, list)):
            remove(value, keys)
    if isinstance(tree, dict):
        for key in keys:
            tree.pop(key, None)


def paths(tree, at=()):
    """The paths of the values that a file states."""
    for key, value in tree.items():
        yield (*at, key)
        if isinstance(value, dict) and value:
            yield from paths(value, (*at, key))


class TestGenerated(unittest.TestCase):
    maxDiff = None

    def test_generated_files_are_as_they_would_be_made(self):
        run(ROOT / "deploy/generate", "--check")

    def test_kustomize_gives_what_the_chart_gives(self):
        chart = render()
        self.assertEqual(compared(kustomized("base")), compared(chart))
        self.assertEqual(compared(Objects((ROOT / "deploy/manifests/install.yaml").read_text())), compared(chart))
        available = render("--values", CHART / "values-ha.yaml")
        self.assertEqual(compared(kustomized("overlays/ha")), compared(available))

    def test_the_api_server_takes_every_overlay(self):
        for folder in ("base", "overlays/dev", "overlays/ha"):
            text = run(kubectl(), "kustomize", KUSTOMIZE / folder)
            with self.subTest(folder):
                path = self.enterContext(temporary(text))
                self.assertEqual(judge(path), "")

    def test_the_overlay_for_development_needs_no_receiver(self):
        objects = kustomized("overlays/dev")
        self.assertIn("stdout", checked(objects.config("agent"), "agent"))
        self.assertIn('"image": "sidelight:dev"', checked(objects.config("injector"), "injector"))
        self.assertEqual(objects.container("agent")["image"], "sidelight:dev")
        self.assertEqual(objects.only("Deployment")["spec"]["replicas"], 1)

    def test_the_overlay_that_the_readme_shows_works(self):
        blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "deploy/README.md").read_text(), re.MULTILINE | re.DOTALL)
        with directory() as folder:
            for name, text in zip(("kustomization.yaml", "sidelight.yaml", "injector.yaml"), blocks, strict=True):
                self.assertTrue(text.startswith(f"# {name}"), text)
                (folder / name).write_text(text.replace("../../base", os.path.relpath(KUSTOMIZE / "base", folder.resolve())))
            objects = kustomized(folder)
        for component in ("agent", "injector"):
            self.assertIn("fluentd.logging.svc:24224", checked(objects.config(component), component))
            self.assertTrue(objects.container(component)["image"].startswith("registry.example/"))

    def test_with_the_component_of_a_podmonitor_the_agents_scrape_nothing_twice(self):
        with directory() as folder:
            base, component = (os.path.relpath(KUSTOMIZE / name, folder.resolve()) for name in ("base", "components/podmonitor"))
            (folder / "kustomization.yaml").write_text(f"resources: [{base}]\ncomponents: [{component}]\n")
            objects = kustomized(folder)
        self.assertEqual(len(objects.of("PodMonitor")), 1)
        for component in ("agent", "injector"):
            self.assertNotIn("sidelight.dev/metrics", objects.pod(component)["metadata"]["annotations"])

    def test_kustomize_leaves_the_names_in_roles_alone(self):
        for folder in ("base", "overlays/dev", "overlays/ha"):
            (rule, *_) = kustomized(folder).only("ClusterRole", "-injector")["rules"]
            self.assertEqual(rule["resourceNames"], ["sidelight-injector"])

    def test_every_value_has_a_schema_and_every_schema_a_value(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        # Helm's own, of a parent chart.
        schema["properties"].pop("global")
        self.assertEqual(list(differences(schema, schema, values)), [])

    def test_every_value_is_explained(self):
        readme = (CHART / "README.md").read_text()
        rows = re.findall(r"^\| (\S+) \| \S+ \|.*\| (.*?) \|$", readme, re.MULTILINE)
        self.assertGreater(len(rows), 100)
        self.assertEqual([name for name, text in rows if len(text) < 4], [])

    def test_the_matrix_turns_every_switch(self):
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        # A field of Kubernetes is no switch of ours.
        switches = {path for path in paths(values) if isinstance(at(values, path), bool) and path[-1] != "runAsNonRoot"}
        turned = set()
        for arguments in MATRIX.values():
            said = json.dumps([str(part) for part in arguments]).replace("\\", "")
            turned |= {path for path in switches if f"{'.'.join(path)}={str(not at(values, path)).lower()}" in said}
        for file in CHART.glob("values-*.yaml"):
            profile = yaml.safe_load(file.read_text())
            turned |= {path for path in paths(profile) if path in switches and at(profile, path) != at(values, path)}
        self.assertEqual(switches - turned, set())

    def test_a_package_has_what_it_needs_and_no_more(self):
        folder = self.enterContext(directory())
        helm("package", CHART, "--destination", folder)
        (package,) = folder.iterdir()
        names = run("tar", "-tzf", package).split()
        self.assertIn("sidelight/files/crd.yaml", names)
        self.assertIn("sidelight/values-ha.yaml", names)
        self.assertGreater(sum(name.startswith("sidelight/files/dashboards/") for name in names), 0)
        self.assertGreater(sum(name.startswith("sidelight/files/rules/") for name in names), 0)
        self.assertEqual([name for name in names if "/ci/" in name or name.endswith(".gotmpl")], [])
        helm("template", "sidelight", package, "--kube-version", "1.30", "--values", DEFAULTS)

    def test_devtrons_values_are_taken_and_its_apps_are_injected(self):
        objects = render("--values", DEVTRON / "values.yaml", defaults=False)
        self.assertTrue(objects.container("agent")["image"].startswith("registry.example.com/"))
        app = yaml.safe_load((DEVTRON / "app-values.yaml").read_text())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app", "annotations": app["podAnnotations"]},
               "spec": {"containers": [{"name": "app", "image": "app"}]}}
        path = self.enterContext(temporary(objects.config("injector")))
        told = run(binary("sidelight-injector"), "inject", "-f", "-", "--config", path, input=json.dumps(pod))
        self.assertEqual(json.loads(told)["spec"]["initContainers"][0]["name"], "sidelight")
        self.assertEqual(json.loads(told)["metadata"]["annotations"]["sidelight.dev/injected-for"], "logs,metrics")


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def differences(root, schema, values, at=""):
    """Where schema and values do not have the same keys."""
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].split("/")[-1]]
    if "properties" not in schema:
        return
    if schema.get("additionalProperties") is not False:
        yield f"{at}: takes anything"
    for key in sorted(schema["properties"].keys() ^ values.keys()):
        if not OPTIONAL.search(f"{at}.{key}"):
            yield f"{at}.{key}"
    for key in schema["properties"].keys() & values.keys():
        if isinstance(values[key], dict):
            yield from differences(root, schema["properties"][key], values[key], f"{at}.{key}")


# What Kubernetes or the user may add.
OPTIONAL = re.compile(r"\.(claims|maxSurge)$|^\.sidecar\.config\.")
