"""What holds whatever the values are: a matrix of them, each switch on and off."""

import json
import re
import tempfile
import unittest
from pathlib import Path

from .render import CHART, Objects, checked, helm, judge, settings, template, DEFAULTS, KUBERNETES

PROFILES = sorted(CHART.glob("values-*.yaml"))
MONITORED = settings(
    monitoring__podMonitor__enabled="true", monitoring__serviceMonitor__enabled="true",
    monitoring__prometheusRule__enabled="true", monitoring__dashboards__enabled="true")
MATRIX = {
    "defaults": [],
    **{profile.stem: ["--values", profile] for profile in PROFILES},
    "agent alone": settings(injector__enabled="false"),
    "injector alone": settings(agent__enabled="false"),
    "logs alone": settings(receivers__remoteWrite=""),
    "several receivers": settings(receivers__forward="{a:24224,b:24224}", cluster="blue"),
    "outputs in the configuration": [
        "--set-json", 'agent.config={"logs":{"outputs":[{"stdout":{}}],"namespace_labels":true},"metrics":{"kubelet":"all",'
        '"pull":{"listen":"[::]:9616","auth":"none"},"series_limit_total":2000000}}', *settings(receivers__forward="")],
    "sidecars otherwise": [
        "--set-json", 'sidecar={"config":{"logs":{"parse":"auto","outputs":[{"forward":{"upstreams":["a:1"],"shared_key":'
        '{"secret":"s","key":"k"}}}]}},"native":"false","resources":{"limits":{"memory":"64Mi"}}}'],
    "UID 1000": settings(agent__runAsUser=1000),
    "emptyDir": settings(agent__dataDir__type="emptyDir"),
    "Docker": settings(agent__docker="true"),
    "SELinux": settings(agent__seLinuxOptions__type="spc_t"),
    "autoscaling": settings(injector__autoscaling__enabled="true"),
    "no budget": settings(injector__podDisruptionBudget__enabled="false"),
    "network of the node": settings(injector__hostNetwork="true", injector__port=9443, injector__adminPort=9444),
    "IPv6": [*settings(injector__service__ipFamilyPolicy="SingleStack"), "--set", "injector.service.ipFamilies={IPv6}",
             *settings(receivers__forward=r"\[fd00::1\]:24224")],
    "dual stack": [*settings(injector__service__ipFamilyPolicy="PreferDualStack"), "--set", "injector.service.ipFamilies={IPv6,IPv4}"],
    "digests": settings(image__agent__digest="sha256:" + "a" * 64, image__injector__digest="sha256:" + "b" * 64),
    "a registry": [*settings(image__registry="registry.example.com/a"), "--set", "imagePullSecrets[0].name=pull"],
    "names of others": settings(
        nameOverride="other", agent__serviceAccount__create="false", agent__serviceAccount__name="mine",
        injector__serviceAccount__create="false", injector__serviceAccount__name="mine"),
    "a long name": settings(fullnameOverride="a-name-of-fifty-characters-that-goes-on-and-on-x"),
    "no roles": settings(agent__rbac__create="false", injector__rbac__create="false"),
    "cert-manager": settings(injector__certificate__source="certManager"),
    "an issuer of others": settings(
        injector__certificate__source="certManager", injector__certificate__issuerRef__name="ca",
        injector__certificate__issuerRef__kind="ClusterIssuer"),
    "a Secret of others": settings(
        injector__certificate__source="secret", injector__certificate__secretName="tls", injector__certificate__caBundle="Q0E="),
    "strict": settings(injector__mode="deny", injector__webhook__failurePolicy="Ignore", injector__webhook__timeoutSeconds=2),
    "network policies": [*settings(networkPolicy__enabled="true"),
                         "--set-json", 'networkPolicy.metricsFrom=[{"namespaceSelector":{}}]'],
    "monitored": MONITORED,
    "nothing extra": settings(crd__install="false", misplacedAnnotations__enabled="false", monitoring__annotations="false"),
    "everything on a pod": [
        "--set-json", 'agent={"env":[{"name":"A","value":"b"}],"envFrom":[{"secretRef":{"name":"s"}}],"podLabels":{"a":"b"},'
        '"podAnnotations":{"a":"b"},"extraVolumes":[{"name":"x","emptyDir":{}}],"extraVolumeMounts":[{"name":"x","mountPath":"/x"}],'
        '"dnsPolicy":"None","dnsConfig":{"nameservers":["1.1.1.1"]},"affinity":{"nodeAffinity":{}},"criticalPodsQuota":true,'
        '"serviceAccount":{"annotations":{"a":"b"}}}',
        "--set-json", 'injector={"env":[{"name":"A","value":"b"}],"podLabels":{"a":"b"},"podAnnotations":{"a":"b"},'
        '"tolerations":[{"operator":"Exists"}],"affinity":{"nodeAffinity":{}},"topologySpreadConstraints":[{"maxSkew":2,"topologyKey":'
        '"kubernetes.io/hostname","whenUnsatisfiable":"DoNotSchedule"}],"service":{"annotations":{"a":"b"}},"serviceAccount":'
        '{"annotations":{"a":"b"}},"webhook":{"annotations":{"admissions.enforcer/disabled":"true"},"excludedNamespaces":["a"]}}'],
    "further objects": ["--set-json", 'extraObjects=[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"{{ .Release.Name }}-x"}}]'],
}
CERTIFICATE = re.compile(r'BEGIN [A-Z ]*(CERTIFICATE|KEY)|caBundle|"tls\.(crt|key)":')


class TestMatrix(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.texts = {name: template(*arguments) for name, arguments in MATRIX.items()}

    def each(self):
        return [(name, Objects(text)) for name, text in self.texts.items()]

    def test_helm_finds_nothing_wrong(self):
        for profile in [DEFAULTS, *PROFILES]:
            helm("lint", "--strict", "--kube-version", KUBERNETES, CHART, "--values", DEFAULTS, "--values", profile)

    def test_the_api_servers_own_schemas_take_every_object(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in self.texts.items():
                (Path(folder) / f"{name.replace(' ', '-')}.yaml").write_text(text)
            self.assertEqual(judge(folder), "")
            (Path(folder) / "wrong.yaml").write_text(self.texts["defaults"].replace("terminationGrace", "terminationgrace"))
            self.assertIn("terminationgrace", judge(folder), "a wrong field is seen")

    def test_nothing_is_random(self):
        for name, arguments in MATRIX.items():
            with self.subTest(name):
                self.assertEqual(self.texts[name], template(*arguments))

    def test_no_certificate_is_rendered(self):
        for name, objects in self.each():
            with self.subTest(name):
                # Without the comments.
                found = CERTIFICATE.search(json.dumps(objects))
                if name == "a Secret of others":
                    self.assertIsNotNone(found, "one would be seen")
                else:
                    self.assertIsNone(found)

    def test_our_programs_take_every_configuration(self):
        for name, objects in self.each():
            with self.subTest(name):
                if objects.of("DaemonSet"):
                    self.assertIn("in force", checked(objects.config("agent"), "agent"))
                if objects.of("Deployment"):
                    checked(objects.config("injector"), "injector", asks=False)

    def test_every_object_can_be_told_from_those_of_others(self):
        for name, objects in self.each():
            with self.subTest(name):
                names = [(object["kind"], object["metadata"].get("namespace"), object["metadata"]["name"]) for object in objects]
                self.assertEqual(sorted(set(names), key=str), sorted(names, key=str), "no object is there twice")
                for object in objects:
                    metadata = object["metadata"]
                    self.assertLessEqual(len(metadata["name"]), 63)
                    if not metadata["name"].endswith("-x") and object["kind"] != "Issuer":
                        self.assertEqual(metadata["labels"]["app.kubernetes.io/instance"], "sidelight", metadata["name"])

    def test_what_one_object_names_is_there(self):
        for name, objects in self.each():
            with self.subTest(name):
                made = {(object["kind"], object["metadata"]["name"]) for object in objects}
                for kind, target in mentioned(objects):
                    if name not in ("names of others", "a Secret of others") or kind not in ("ServiceAccount", "Secret"):
                        self.assertIn((kind, target), made)

    def test_selectors_find_the_pods_of_their_component_and_no_others(self):
        for name, objects in self.each():
            with self.subTest(name):
                pods = [(workload["metadata"]["name"], workload["spec"]["template"]["metadata"]["labels"])
                        for workload in objects.of("DaemonSet") + objects.of("Deployment")]
                for object in objects:
                    selector = selector_of(object)
                    found = [name for name, labels in pods if selector and selector.items() <= labels.items()]
                    if selector:
                        self.assertEqual(len(found), 1, f"{object['kind']} {object['metadata']['name']}: {found}")

    def test_containers_have_no_rights_that_they_do_not_need(self):
        for name, objects in self.each():
            with self.subTest(name):
                for pod in [workload["spec"]["template"]["spec"] for workload in objects.of("DaemonSet") + objects.of("Deployment")] + [
                        pod["spec"] for pod in objects.of("Pod")]:
                    self.assertFalse({"hostPID", "hostIPC"} & pod.keys())
                    self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                    for container in pod["containers"]:
                        context = container["securityContext"]
                        self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                        self.assertIs(context["allowPrivilegeEscalation"], False)
                        self.assertIs(context["readOnlyRootFilesystem"], True)
                        self.assertNotIn("privileged", context)
                        self.assertIn("memory", container["resources"]["limits"])
                        self.assertEqual(container["resources"]["requests"].keys() & {"cpu", "memory"}, {"cpu", "memory"})
                        self.assertNotRegex(container["image"], r":latest$|:$")
                        ports = {port["name"] for port in container.get("ports", [])}
                        probes = [container[probe] for probe in ("livenessProbe", "readinessProbe") if probe in container]
                        probed = [probe["httpGet"]["port"] for probe in probes]
                        self.assertLessEqual(set(probed), ports)

    def test_the_host_is_only_read_but_for_the_data_directory(self):
        for name, objects in self.each():
            with self.subTest(name):
                for workload in objects.of("DaemonSet"):
                    pod = workload["spec"]["template"]["spec"]
                    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
                    for volume in pod["volumes"]:
                        if "hostPath" in volume and volume["name"] != "data":
                            self.assertIs(mounts[volume["name"]]["readOnly"], True)

    def test_roles_allow_nothing_by_a_wildcard(self):
        for name, objects in self.each():
            with self.subTest(name):
                for role in objects.of("Role") + objects.of("ClusterRole"):
                    for rule in role["rules"]:
                        self.assertNotIn("*", sum(rule.values(), []))
                        self.assertNotIn("nodes/proxy", rule["resources"])
                        if "secrets" in rule["resources"]:
                            self.assertEqual(len(rule["resourceNames"]), 1)


def mentioned(objects):
    """Kind and name of what objects of the chart name."""
    for workload in objects.of("DaemonSet") + objects.of("Deployment") + objects.of("Pod"):
        pod = workload["spec"].get("template", workload)["spec"]
        yield "ServiceAccount", pod["serviceAccountName"]
        for volume in pod["volumes"]:
            if "configMap" in volume:
                yield "ConfigMap", volume["configMap"]["name"]
    for binding in objects.of("RoleBinding") + objects.of("ClusterRoleBinding"):
        yield binding["roleRef"]["kind"], binding["roleRef"]["name"]
        yield "ServiceAccount", binding["subjects"][0]["name"]
    for configuration in objects.of("MutatingWebhookConfiguration"):
        yield "Service", configuration["webhooks"][0]["clientConfig"]["service"]["name"]
    for autoscaler in objects.of("HorizontalPodAutoscaler"):
        yield "Deployment", autoscaler["spec"]["scaleTargetRef"]["name"]
    for binding in objects.of("ValidatingAdmissionPolicyBinding"):
        yield "ValidatingAdmissionPolicy", binding["spec"]["policyName"]


def selector_of(object):
    spec = object.get("spec") or {}
    return {
        "Service": lambda: spec["selector"],
        "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"],
        "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
        "DaemonSet": lambda: spec["selector"]["matchLabels"],
        "Deployment": lambda: spec["selector"]["matchLabels"],
    }.get(object["kind"], dict)()
