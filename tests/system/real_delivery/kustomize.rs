//! The Kustomize base, with an overlay of a user's.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::reviews::{asking, create};
use super::{NAME, Site, run, writer};
use crate::real_kubernetes::stage::{kubectl, name, wait_for};

/// Scenario: the Kustomize base, with an overlay as a user writes it: two configurations, and the names of images.
/// Guarantee: kubectl applies it, and applies it again without taking the certificate away; lines arrive, and a pod that asks comes
/// back with a sidecar.
#[test]
#[ignore = "needs a cluster"]
fn kustomize_installs_what_the_chart_installs() {
    let site = Site::open("kustomize");
    let directory = overlay(&site.ways[0].address().to_string());
    let apply = || assert!(run(&["apply", "-k", &directory.path().join("overlay").display().to_string()]).0);
    let _uninstalled = Applied(directory.path().join("overlay"));
    apply();
    for workload in ["daemonset/sidelight-agent", "deployment/sidelight-injector"] {
        assert!(run(&["rollout", "status", "-n", NAME, workload, "--timeout=120s"]).0, "{workload}");
    }
    let secret =
        || kubectl(&["get", "secret", "sidelight-injector-tls", "-n", NAME, "-o", "json"])["data"].clone();
    let before = secret();
    assert!(before["tls.crt"].is_string());
    apply();
    assert_eq!(secret(), before);
    assert_eq!(create(&asking("asking", &site.stage.namespace)), Ok(()));
    let writers = site.stage.run("writer", 1, &writer("writer", 100, 0));
    wait_for("all lines", || site.fluent.count(name(&writers[0])) == 100);
}

/// The folder of Kustomize, and an overlay in it.
fn overlay(forward: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/kustomize/.");
    assert!(Command::new("cp").arg("-r").arg(source).arg(directory.path()).status().unwrap().success());
    let overlay = directory.path().join("overlay");
    std::fs::create_dir(&overlay).unwrap();
    let outputs = format!("outputs: [{{ forward: {{ upstreams: ['{forward}'] }} }}]");
    std::fs::write(overlay.join("sidelight.yaml"), format!("logs: {{ {outputs} }}\n")).unwrap();
    let names = "certificate: { secret: sidelight-injector-tls, service: sidelight-injector, webhook: sidelight-injector }";
    let sidecar = format!("sidecar: {{ image: 'sidelight.test/sidelight:1', logs: {{ {outputs} }} }}");
    std::fs::write(overlay.join("injector.yaml"), format!("{names}\n{sidecar}\n")).unwrap();
    std::fs::write(overlay.join("kustomization.yaml"), KUSTOMIZATION).unwrap();
    directory
}

const KUSTOMIZATION: &str = "
resources: [../base]
configMapGenerator:
- { name: sidelight-agent-config, namespace: sidelight, behavior: replace, files: [sidelight.yaml] }
- { name: sidelight-injector-config, namespace: sidelight, behavior: replace, files: [injector.yaml] }
images:
- { name: sidelight, newName: sidelight.test/sidelight, newTag: '1' }
- { name: sidelight-injector, newName: sidelight.test/sidelight-injector, newTag: '1' }
patches:
- target: { kind: DaemonSet }
  patch: |
    - { op: replace, path: /spec/template/spec/volumes/1/hostPath/path, value: /run/sidelight-cluster/data-kustomize }
";

/// What was applied from a folder; it goes with the test.
struct Applied(PathBuf);

impl Drop for Applied {
    fn drop(&mut self) {
        run(&["delete", "-k", &self.0.display().to_string(), "--ignore-not-found"]);
    }
}
