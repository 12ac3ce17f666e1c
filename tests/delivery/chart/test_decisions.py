"""What single values decide."""

import unittest

import yaml

from .render import CHART, checked, notes, render, settings, template

METRICS_FROM = 'networkPolicy.metricsFrom=[{"namespaceSelector":{}}]'
AGENT_RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]


class TestDecisions(unittest.TestCase):
    def refused(self, *arguments, **options):
        """What Helm says instead of rendering."""
        with self.assertRaises(AssertionError) as caught:
            template(*arguments, **options)
        return str(caught.exception)

    def resources(self, objects):
        return [rule["resources"] for rule in objects.only("ClusterRole", "-agent")["rules"]]

    def test_without_a_receiver_it_says_what_to_set(self):
        told = self.refused(defaults=False)
        self.assertIn("--set receivers.forward=", told)
        self.assertIn("stdout", told)
        # An injector alone needs none.
        render(*settings(agent__enabled="false"), defaults=False)

    def test_the_standard_output_that_it_proposes_works(self):
        objects = render("--set-json", 'agent.config.logs.outputs=[{"stdout":{}}]', defaults=False)
        self.assertIn("stdout", checked(objects.config("agent"), "agent"))

    def test_unknown_and_wrong_values_are_refused(self):
        self.assertIn("agnet", self.refused(*settings(agnet__enabled="true")))
        self.assertIn("colour", self.refused(*settings(agent__colour="red")))
        self.assertIn("mode", self.refused(*settings(injector__mode="maybe")))
        self.assertIn("digest", self.refused(*settings(image__agent__digest="abc")))
        self.assertIn("remoteWrite", self.refused(*settings(receivers__remoteWrite="prometheus:9090")))

    def test_both_receivers_reach_agent_and_sidecars(self):
        objects = render(*settings(cluster="blue"))
        for component in ("agent", "injector"):
            config = objects.config(component)
            for text in ("fluentd.logging.svc:24224", "http://prometheus.monitoring.svc:9090/api/v1/write", "cluster: blue"):
                self.assertIn(text, config)

    def test_the_configuration_of_the_user_goes_before_that_of_the_chart(self):
        objects = render(*settings(
            agent__config__admin__listen="0.0.0.0:9000", agent__config__memory_budget="48MiB",
            sidecar__config__logs__parse="auto", injector__config__admin__listen="[::]:9614"))
        self.assertEqual(objects.container("agent")["ports"][0]["containerPort"], 9000)
        self.assertIn("memory_budget: 48MiB", objects.config("agent"))
        self.assertIn("fluentd.logging.svc:24224", objects.config("agent"))
        self.assertIn("parse: auto", objects.config("injector"))

    def test_numbers_stay_as_they_were_written(self):
        objects = render("--set-json", 'agent.config.metrics={"series_limit_total":2000000}')
        self.assertIn("series_limit_total: 2000000\n", objects.config("agent"))

    def test_another_configuration_rolls_and_the_same_does_not(self):
        before, other = render(), render(*settings(cluster="blue"))
        same = render(*settings(agent__podLabels__a="b"))
        for component in ("agent", "injector"):
            name = lambda objects: next(volume["configMap"]["name"] for volume in objects.pod(component)["spec"]["volumes"])
            self.assertNotEqual(name(before), name(other))
            self.assertEqual(name(before), name(same))

    def test_the_injector_has_no_number_of_replicas_under_an_autoscaler(self):
        self.assertEqual(render().only("Deployment")["spec"]["replicas"], 2)
        objects = render(*settings(injector__autoscaling__enabled="true"))
        self.assertNotIn("replicas", objects.only("Deployment")["spec"])
        self.assertEqual(objects.only("HorizontalPodAutoscaler")["spec"]["minReplicas"], 2)

    def test_an_update_of_the_injector_takes_no_replica_away_first(self):
        strategy = render().only("Deployment")["spec"]["strategy"]["rollingUpdate"]
        self.assertEqual(strategy, {"maxUnavailable": 0, "maxSurge": 1})
        # It answers for five seconds after SIGTERM.
        self.assertGreater(render().pod("injector")["spec"]["terminationGracePeriodSeconds"], 5)

    def test_the_agent_is_root_without_capabilities_or_in_roots_group(self):
        context = render().container("agent")["securityContext"]
        self.assertEqual((context["runAsUser"], context["runAsNonRoot"]), (0, False))
        context = render(*settings(agent__runAsUser=1000)).container("agent")["securityContext"]
        self.assertEqual((context["runAsUser"], context["runAsGroup"], context["runAsNonRoot"]), (1000, 0, True))

    def test_the_agent_may_do_what_its_configuration_needs_and_no_more(self):
        self.assertEqual(render().only("ClusterRole", "-agent")["rules"], AGENT_RULES)
        objects = render(*settings(agent__config__logs__namespace_labels="true"))
        self.assertEqual(self.resources(objects), [["pods"], ["namespaces"]])
        objects = render(*settings(agent__config__metrics__kubelet="resource"))
        self.assertEqual(self.resources(objects), [["pods"], ["nodes/metrics"]])
        pull = '{"listen":"[::]:9616","auth":"token","tls":{"cert_file":"/c","key_file":"/k"}}'
        objects = render("--set-json", f"agent.config.metrics.pull={pull}")
        self.assertEqual(self.resources(objects), [["pods"], ["tokenreviews"], ["subjectaccessreviews"]])
        objects = render(*settings(agent__config__kubernetes__source="none"))
        self.assertEqual(objects.of("ClusterRole", "-agent"), [])

    def test_the_injector_reads_one_secret_and_only_its_own_certificate(self):
        objects = render()
        (rule,) = objects.only("Role", "-injector")["rules"]
        self.assertEqual((rule["resources"], rule["verbs"]), (["secrets"], ["get", "update"]))
        self.assertEqual(rule["resourceNames"], ["sidelight-injector-tls"])
        self.assertEqual(objects.only("Secret").keys(), {"apiVersion", "kind", "metadata", "type"})
        for source in ("certManager", "secret"):
            objects = render(*settings(injector__certificate__source=source, injector__certificate__secretName="s",
                                       injector__certificate__caBundle="Q0E="))
            self.assertEqual(objects.of("Role", "-injector"), [])
            self.assertNotIn("mutatingwebhookconfigurations", str(objects.only("ClusterRole", "-injector")))

    def test_with_cert_manager_a_renewed_certificate_is_believed_before_the_api_server_hears_of_it(self):
        source = settings(injector__certificate__source="certManager", injector__certificate__caLifetime="9000h")
        objects = render(*source)
        certificate, authority = objects.only("Certificate", "-injector"), objects.only("Certificate", "-ca")
        issuer = objects.only("Issuer", certificate["spec"]["issuerRef"]["name"])
        self.assertEqual(issuer["spec"], {"ca": {"secretName": authority["spec"]["secretName"]}})
        self.assertEqual((authority["spec"]["isCA"], authority["spec"]["duration"]), (True, "9000h"))
        self.assertEqual(authority["spec"]["privateKey"]["rotationPolicy"], "Never")
        self.assertEqual(objects.only("Issuer", authority["spec"]["issuerRef"]["name"])["spec"], {"selfSigned": {}})
        (webhook,) = objects.of("MutatingWebhookConfiguration")
        self.assertEqual(webhook["metadata"]["annotations"]["cert-manager.io/inject-ca-from"], "sidelight/sidelight-injector")
        objects = render(*source, *settings(injector__certificate__issuerRef__name="mine"))
        self.assertEqual(objects.only("Certificate")["spec"]["issuerRef"], {"name": "mine"})
        self.assertEqual(objects.of("Issuer"), [])

    def test_each_source_of_certificates_has_a_secret_of_its_own(self):
        source = lambda name: render(*settings(
            injector__certificate__source=name, injector__certificate__secretName="mine", injector__certificate__caBundle="Q0E="))
        volume = lambda objects: objects.pod("injector")["spec"]["volumes"][-1]["secret"]["secretName"]
        self.assertEqual(render().only("Secret")["metadata"]["name"], "sidelight-injector-tls")
        self.assertEqual(volume(source("certManager")), "sidelight-injector-issued")
        self.assertEqual(source("certManager").only("Certificate", "-injector")["spec"]["secretName"], "sidelight-injector-issued")
        self.assertEqual(volume(source("secret")), "mine")

    def test_no_value_changes_what_pods_are_selected_by(self):
        selector = {"app.kubernetes.io/name": "sidelight", "app.kubernetes.io/instance": "sidelight"}
        for arguments in ([], settings(nameOverride="other"), settings(fullnameOverride="other"), ["--set", "commonLabels.a=b"]):
            objects = render(*arguments)
            for kind, component in (("DaemonSet", "agent"), ("Deployment", "injector")):
                labels = objects.only(kind)["spec"]["selector"]["matchLabels"]
                self.assertEqual(labels, {**selector, "app.kubernetes.io/component": component})

    def test_only_pods_that_ask_reach_the_webhook(self):
        objects = render("--set", "injector.webhook.excludedNamespaces={a}", namespace="other")
        (webhook,) = objects.only("MutatingWebhookConfiguration")["webhooks"]
        self.assertIn("'sidelight.dev/inject' in object.metadata.annotations", webhook["matchConditions"][0]["expression"])
        self.assertEqual(webhook["failurePolicy"], "Fail")
        self.assertEqual(webhook["sideEffects"], "NoneOnDryRun")
        left_out = webhook["namespaceSelector"]["matchExpressions"][1]["values"]
        self.assertEqual(left_out, ["kube-system", "kube-node-lease", "other", "a"])
        self.assertNotIn("caBundle", webhook["clientConfig"])

    def test_images_have_registry_tag_and_digest(self):
        image = lambda *arguments: render(*arguments).container("agent")["image"]
        self.assertEqual(image(), "sidelight:0.1.0")
        self.assertEqual(image(*settings(image__registry="r/a/")), "r/a/sidelight:0.1.0")
        self.assertEqual(image(*settings(image__agent__tag="x", image__agent__repository="b")), "b:x")
        digest = "sha256:" + "0" * 64
        self.assertEqual(image(*settings(image__agent__tag="x", image__agent__digest=digest)), f"sidelight@{digest}")
        objects = render(*settings(image__registry="r", image__agent__tag="x", image__agent__pullPolicy="Always"))
        self.assertIn("image: r/sidelight:x", objects.config("injector"))
        self.assertIn("image_pull_policy: Always", objects.config("injector"))

    def test_on_the_nodes_network_the_injector_still_knows_the_cluster(self):
        pod = render(*settings(injector__hostNetwork="true", injector__port=9443)).pod("injector")["spec"]
        self.assertEqual((pod["hostNetwork"], pod["dnsPolicy"]), (True, "ClusterFirstWithHostNet"))
        self.assertEqual(pod["containers"][0]["ports"][0]["containerPort"], 9443)

    def test_agent_and_injector_are_scraped_by_the_agent(self):
        for component in ("agent", "injector"):
            annotations = render().pod(component)["metadata"]["annotations"]
            self.assertEqual((annotations["sidelight.dev/metrics"], annotations["sidelight.dev/metrics.port"]), ("true", "admin"))
            annotations = render(*settings(monitoring__annotations="false")).pod(component)["metadata"]["annotations"]
            self.assertNotIn("sidelight.dev/metrics", annotations)

    def test_the_agent_knows_its_grace_period_and_itself(self):
        container = render(*settings(agent__terminationGracePeriodSeconds=90)).container("agent")
        self.assertIn("--grace-period=90s", container["args"])
        fields = {variable["name"]: variable["valueFrom"]["fieldRef"]["fieldPath"]
                  for variable in container["env"] if "valueFrom" in variable}
        self.assertEqual(fields, {"NODE_NAME": "spec.nodeName", "POD_NAME": "metadata.name", "POD_UID": "metadata.uid"})

    def test_the_definition_outlives_the_release(self):
        definition = render().only("CustomResourceDefinition")
        self.assertEqual(definition["metadata"]["annotations"]["helm.sh/resource-policy"], "keep")

    def test_the_policy_warns_and_never_refuses(self):
        objects = render()
        self.assertEqual(objects.only("ValidatingAdmissionPolicyBinding")["spec"]["validationActions"], ["Warn"])
        self.assertEqual(objects.only("ValidatingAdmissionPolicy")["spec"]["failurePolicy"], "Ignore")

    def test_the_webhook_may_be_called_from_everywhere(self):
        objects = render(*settings(networkPolicy__enabled="true"), "--set-json", METRICS_FROM)
        webhook, _ = objects.only("NetworkPolicy", "-injector")["spec"]["ingress"]
        self.assertEqual(webhook, {"ports": [{"port": "webhook"}]})
        self.assertEqual([policy["spec"]["policyTypes"] for policy in objects.of("NetworkPolicy")], 2 * [["Ingress"]])

    def test_the_agents_may_read_metrics_that_they_scrape(self):
        def readers(**values):
            objects = render(*settings(networkPolicy__enabled="true", **values), "--set-json", METRICS_FROM)
            return [policy["spec"]["ingress"][-1]["from"] for policy in objects.of("NetworkPolicy")]
        agents = {"podSelector": {"matchLabels": render().only("DaemonSet")["spec"]["selector"]["matchLabels"]}}
        self.assertEqual(readers(), 2 * [[{"namespaceSelector": {}}, agents]])
        self.assertEqual(readers(monitoring__annotations="false"), 2 * [[{"namespaceSelector": {}}]])

    def test_the_test_creates_its_pod_where_the_injector_is_called(self):
        namespace = lambda **options: render(**options).only("Pod")["spec"]["containers"][0]["args"][-1]
        self.assertEqual(namespace(), "--namespace=default")
        self.assertEqual(namespace(namespace="default"), "--namespace=kube-public")

    def test_everything_of_the_test_goes_with_it(self):
        for object in render():
            if object["metadata"]["name"].endswith("-test"):
                self.assertIn("hook-succeeded", object["metadata"]["annotations"]["helm.sh/hook-delete-policy"])

    def test_dashboards_and_rules_are_those_of_the_repository(self):
        objects = render(*settings(monitoring__dashboards__enabled="true", monitoring__prometheusRule__enabled="true"))
        dashboards = {path.name: path.read_text() for path in (CHART.parents[2] / "dashboards/grafana").glob("*.json")}
        rendered = {name: text for config in objects.of("ConfigMap") if "-dashboard-" in config["metadata"]["name"]
                    for name, text in config["data"].items()}
        self.assertGreater(len(dashboards), 0)
        self.assertEqual({name: text.strip() for name, text in rendered.items()}, {name: text.strip() for name, text in dashboards.items()})
        rules = [yaml.safe_load(path.read_text()) for path in sorted((CHART.parents[2] / "dashboards/rules").glob("*.yaml"))]
        self.assertEqual([rule["spec"] for rule in objects.of("PrometheusRule")], rules)

    def test_alerts_name_the_runbooks_that_are_served(self):
        objects = render(*settings(
            monitoring__prometheusRule__enabled="true", monitoring__prometheusRule__runbooks="https://wiki.example/sidelight"))
        alerts = [rule for object in objects.of("PrometheusRule") for group in object["spec"]["groups"]
                  for rule in group["rules"] if "alert" in rule]
        self.assertGreater(len(alerts), 30)
        for alert in alerts:
            self.assertRegex(alert["annotations"]["runbook_url"], rf"^https://wiki\.example/sidelight/{alert['alert']}\b")

    def test_notes_say_where_everything_goes_and_what_to_type(self):
        told = notes()
        for text in ("fluentd.logging.svc:24224", "http://prometheus.monitoring.svc:9090/api/v1/write", "sidelight outputs",
                     "helm test sidelight -n sidelight", 'sidelight.dev/inject: "true"'):
            self.assertIn(text, told)
        told = notes(*settings(injector__enabled="false"))
        self.assertNotIn("inject", told)
        told = notes(*settings(agent__enabled="false"))
        self.assertNotIn("daemonset", told)

    def test_notes_warn_of_what_would_go_wrong(self):
        warnings = {
            "No sidecar reads logs yet": settings(receivers__forward="") + ["--set-json", 'agent.config.logs.outputs=[{"stdout":{}}]'],
            "With one replica, pods that ask for a sidecar are refused": settings(injector__replicas=1),
            "are scraped twice": settings(monitoring__podMonitor__enabled="true"),
            "Images have no registry: nodes must have sidelight:0.1.0": settings(image__registry=""),
        }
        without = notes(*settings(image__registry="registry.example"))
        for text, arguments in warnings.items():
            self.assertIn(text, notes(*arguments))
            self.assertNotIn(text, without)
