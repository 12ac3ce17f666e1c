//! Certificates and authorities that change while API servers ask.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sidelight_tests::caller::Caller;
use sidelight_tests::control_plane::{ControlPlane, SERVER_NAME};
use sidelight_tests::eventually;

use crate::certificate::der;
use crate::load::Load;
use crate::start;

/// API servers see a change of a webhook's configuration so late.
const BEHIND: Duration = Duration::from_secs(2);

/// Scenario: two replicas with certificates of a short life, and API servers that ask them without pause, over kept and over
/// new connections, believing whom the configuration named two seconds ago.
/// Guarantee: over two changes of the certificate and one of the authority no request fails.
#[test]
fn no_request_fails_while_certificates_and_authorities_change() {
    let plane = Arc::new(ControlPlane::new());
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let short = "certificate: { lifetime: 30s, ca_lifetime: 60s }\n";
    let replicas = directories.each_ref().map(|directory| start(directory, &plane, short).ready());
    let addresses = replicas.each_ref().map(|replica| replica.address());
    let load = Load::start(&plane, &addresses, BEHIND);
    let first = plane.secret()["ca.crt"].clone();
    let mut certificates = BTreeSet::new();
    // The newest authority stands first in the bundle, and a client that knows only that one is content with both replicas.
    let is_new_authority_in_force = || {
        let newest =
            plane.secret()["ca.crt"].split_inclusive("-----END CERTIFICATE-----\n").next().map(str::to_owned);
        let is_shown = |newest: &str| {
            addresses.iter().all(|address| Caller::new(*address, SERVER_NAME, newest).connect().is_ok())
        };
        newest.is_some_and(|newest| newest != first && is_shown(&newest))
    };
    eventually("certificates and authorities have changed", || {
        certificates.insert(der(&plane.secret()["tls.crt"]));
        load.has_failed() || (certificates.len() >= 3 && is_new_authority_in_force())
    });
    assert!(load.answered() > 100, "{} requests", load.answered());
    load.finish();
}

/// Scenario: somebody deletes the Secret while API servers ask.
/// Guarantee: it is made anew, and no request fails.
#[test]
fn no_request_fails_when_the_secret_is_deleted() {
    let plane = Arc::new(ControlPlane::new());
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let replicas = directories.each_ref().map(|directory| {
        start(directory, &plane, "certificate: { lifetime: 100s, ca_lifetime: 600s }\n").ready()
    });
    let addresses = replicas.each_ref().map(|replica| replica.address());
    let load = Load::start(&plane, &addresses, BEHIND);
    plane.delete_secret();
    let is_shown = || {
        let secret = plane.secret();
        let Some(certificate) = secret.get("tls.crt") else { return false };
        addresses.iter().all(|address| {
            let line = Caller::new(*address, SERVER_NAME, &secret["ca.crt"]).connect();
            line.is_ok_and(|line| line.certificate() == der(certificate))
        })
    };
    eventually("the new certificate is shown", || load.has_failed() || is_shown());
    load.finish();
}
