//! Where the certificate comes from, and who believes it.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use sidelight_tests::caller::{Caller, review};
use sidelight_tests::control_plane::{ControlPlane, Mood, SERVER_NAME};
use sidelight_tests::eventually;
use sidelight_tests::tls::Authority;

use crate::{Stage, answer, caller, pod, start};

/// Who calls by this name and believes this bundle.
fn caller_of(stage: &Stage, name: &str, bundle: &str) -> Caller {
    Caller::new(stage.injector.address(), name, bundle)
}

/// The configuration of webhooks without what the injector may write.
fn without_bundles(mut webhooks: Value) -> Value {
    webhooks["metadata"] = Value::Null;
    for webhook in webhooks["webhooks"].as_array_mut().unwrap() {
        if webhook["name"] != "other.sidelight.dev" {
            webhook["clientConfig"].as_object_mut().unwrap().remove("caBundle");
        }
    }
    webhooks
}

/// Scenario: a cluster that an injector comes to for the first time.
/// Guarantee: it makes a Secret, tells the API server of its authority, but only where its own Service is called, and shows a
/// certificate that is good for that authority and the Service's name, and for no other.
#[test]
fn a_certificate_is_made_that_the_api_server_believes() {
    let before = ControlPlane::new().webhooks();
    let stage = Stage::new();
    let secret = stage.plane.secret();
    assert_eq!(secret.keys().collect::<Vec<_>>(), ["ca.crt", "ca.key", "tls.crt", "tls.key"]);
    let after = stage.plane.webhooks();
    let bundle = |index: usize| after["webhooks"][index]["clientConfig"]["caBundle"].as_str();
    assert_eq!(stage.plane.ca_bundle(Duration::ZERO).as_ref(), Some(&secret["ca.crt"]));
    assert!(bundle(0).is_some() && bundle(0) == bundle(1));
    assert_eq!((bundle(2), bundle(3)), (Some("b3RoZXI="), None));
    assert_eq!(without_bundles(after.clone()), without_bundles(before));
    answer(&stage.caller().review(&review("u", "shop", &pod(), false)).unwrap());
    for name in ["sidelight-injector.elsewhere.svc", "other.sidelight.svc"] {
        let error = caller_of(&stage, name, &secret["ca.crt"]).connect().err().unwrap();
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }
    let file = stage.directory.path().join("other.pem");
    Authority::new().write(&file);
    let other = caller_of(&stage, SERVER_NAME, &fs::read_to_string(file).unwrap());
    let error = other.connect().err().unwrap();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

/// Scenario: two replicas start at once; both find no Secret, both make one.
/// Guarantee: one of them wins, and both show its certificate.
#[test]
fn replicas_that_start_at_once_agree_on_one_certificate() {
    let (plane, directories) = (ControlPlane::new(), [(); 2].map(|()| tempfile::tempdir().unwrap()));
    plane.set_mood(Mood::Slow(Duration::from_secs(1)));
    let replicas = directories.each_ref().map(|directory| start(directory, &plane, ""));
    eventually("both are ready", || replicas.iter().all(|replica| replica.is_ready()));
    assert_eq!(plane.count("POST /api/v1/namespaces/sidelight/secrets"), 2);
    let shown = replicas.each_ref().map(|replica| caller(replica, &plane).connect().unwrap().certificate());
    assert_eq!(shown[0], shown[1]);
    assert_eq!(plane.bundles(), 1);
}

/// Scenario: the Secret is there and empty, as the chart makes it, and both replicas start at once.
/// Guarantee: it is filled once, and stays the Secret that it was: no right to make Secrets is needed.
#[test]
fn an_empty_secret_is_filled() {
    let (plane, directories) = (ControlPlane::new(), [(); 2].map(|()| tempfile::tempdir().unwrap()));
    plane.make_empty_secret();
    let replicas = directories.each_ref().map(|directory| start(directory, &plane, ""));
    eventually("both are ready", || replicas.iter().all(|replica| replica.is_ready()));
    assert_eq!(plane.count("POST /api/v1/namespaces/sidelight/secrets"), 0);
    let shown = replicas.each_ref().map(|replica| caller(replica, &plane).connect().unwrap().certificate());
    assert_eq!(shown[0], shown[1]);
    assert_eq!(plane.bundles(), 1);
}

/// Scenario: somebody writes nonsense over each entry of the Secret, or a key that belongs to another certificate.
/// Guarantee: the Secret is made anew, the API server told, and a certificate is shown that it believes.
#[test]
fn a_secret_that_somebody_broke_is_made_anew() {
    let stage = Stage::with("certificate: { lifetime: 60s, ca_lifetime: 600s }\n");
    let other = ControlPlane::new();
    let directory = tempfile::tempdir().unwrap();
    drop(start(&directory, &other, "").ready());
    let key_of_others = other.secret()["tls.key"].clone();
    let broken = [
        ("ca.crt", "x"),
        ("ca.key", "x"),
        ("tls.crt", ""),
        ("tls.key", "x"),
        ("tls.key", &key_of_others),
        ("ca.key", &key_of_others),
    ];
    for (entry, nonsense) in broken {
        stage.plane.set_secret_entry(entry, nonsense);
        eventually(&format!("{entry} is made anew"), || stage.plane.secret()[entry] != nonsense);
        eventually("the new certificate is shown and believed", || {
            let secret = stage.plane.secret();
            let bundle = stage.plane.ca_bundle(Duration::ZERO);
            let shown = || Some(stage.caller().connect().ok()?.certificate());
            bundle.as_ref() == Some(&secret["ca.crt"]) && shown() == Some(der(&secret["tls.crt"]))
        });
        assert!(stage.injector.is_ready());
    }
}

/// The first certificate of a PEM text.
pub(crate) fn der(pem: &str) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

/// Scenario: somebody takes the authority out of the webhooks' configuration, as a tool does that applies a manifest.
/// Guarantee: it is written again.
#[test]
fn an_authority_that_somebody_took_away_is_told_again() {
    let stage = Stage::with("certificate: { lifetime: 60s, ca_lifetime: 600s }\n");
    stage.plane.reset_webhooks();
    let bundle = || stage.plane.webhooks()["webhooks"][0]["clientConfig"]["caBundle"].is_string();
    eventually("the authority is told again", bundle);
}

/// Scenario: the API server is away when the injector starts, and comes later.
/// Guarantee: the injector lives and says what it waits for; it is ready once it has been able to do its part.
#[test]
fn an_api_server_that_is_away_at_first_is_waited_for() {
    let (plane, directory) = (ControlPlane::start(Mood::Away), tempfile::tempdir().unwrap());
    let injector = start(&directory, &plane, "");
    let (status, why) = injector.get("/readyz");
    assert_eq!((status, why.as_str()), (503, "there is no certificate that is valid now\n"));
    assert_eq!(injector.get("/livez").0, 200);
    plane.set_mood(Mood::Serves);
    let injector = injector.ready();
    answer(&caller(&injector, &plane).review(&review("u", "shop", &pod(), false)).unwrap());
}

/// Scenario: the API server answers nothing more for a while, then does again; meanwhile somebody has broken the Secret.
/// Guarantee: reviews are answered all the time, and what was asked in vain is asked again.
#[test]
fn an_api_server_that_hangs_holds_up_no_review_and_is_asked_again() {
    let stage = Stage::with("certificate: { lifetime: 600s, ca_lifetime: 1h }\n");
    stage.plane.set_mood(Mood::Hangs);
    let asked = stage.injector.log().len();
    eventually("the injector has said that it waits in vain", || {
        answer(&stage.caller().review(&review("u", "shop", &pod(), true)).unwrap());
        assert!(stage.injector.is_ready());
        stage.injector.log()[asked..].contains("cannot read the Secret")
    });
    stage.plane.set_secret_entry("tls.crt", "broken");
    stage.plane.set_mood(Mood::Serves);
    eventually("the Secret is made anew", || stage.plane.secret()["tls.crt"] != "broken");
    stage.plane.apply_profile("shop", "late", &serde_json::json!({ "image": "sidelight:test" }));
    eventually("profiles are watched again", || !stage.plane.profile("shop", "late")["status"].is_null());
}

/// Scenario: a certificate in files, as cert-manager writes them; then another one, then files that cannot be used.
/// Guarantee: the new one is shown without a restart; what cannot be used changes nothing.
#[test]
fn a_certificate_in_files_is_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key, authority) =
        ["tls.crt", "tls.key", "ca.crt"].map(|name| directory.path().join(name)).into();
    let first = Authority::new();
    first.issue(SERVER_NAME).write(&certificate, &key);
    let plane = ControlPlane::new();
    let files = format!(
        "certificate: {{ source: files, cert_file: '{}', key_file: '{}' }}\n",
        certificate.display(),
        key.display()
    );
    let injector = start(&directory, &plane, &files).ready();
    let caller = |of: &Authority| {
        of.write(&authority);
        Caller::new(injector.address(), SERVER_NAME, &fs::read_to_string(&authority).unwrap())
    };
    answer(&caller(&first).review(&review("u", "shop", &pod(), false)).unwrap());
    let second = Authority::new();
    second.issue(SERVER_NAME).write(&certificate, &key);
    eventually("the second certificate is shown", || caller(&second).connect().is_ok());
    assert!(caller(&first).connect().is_err());
    fs::write(&key, "nonsense").unwrap();
    fs::write(&certificate, "nonsense").unwrap();
    eventually("it says that the files are bad", || injector.log().contains("cannot be used"));
    answer(&caller(&second).review(&review("u", "shop", &pod(), false)).unwrap());
    assert!(injector.is_ready());
    assert_eq!(plane.count("GET /api/v1/namespaces/sidelight/secrets"), 0, "files are not its to manage");
}
