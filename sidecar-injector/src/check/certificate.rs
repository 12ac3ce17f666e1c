//! The certificate that the API server is shown, against what it believes in.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Finding, Status};
use crate::certificate::{Seen, look};

const CHECK: &str = "certificate";
const DAY: i64 = 86_400;
/// A certificate of a longer life is renewed before it has so little left; one of a shorter with a third of it.
const LEFT: i64 = 30 * DAY;

/// What the Secret has, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// `tls.crt`: what is served.
    pub chain: String,
    /// `ca.crt`: who signs it.
    pub bundle: Option<String>,
}

/// Judges what the Secret has, if it may be read, by the API server's `caBundle`. `name` is the one that it calls by.
pub fn certificate(bundle: &str, secret: Result<Option<&Shown>, &str>, name: &str, now: i64) -> Finding {
    let failed = |message: String, hint| Finding::new(CHECK, Status::Failed, message, hint);
    if bundle.trim().is_empty() {
        return failed(
            "the webhook has no caBundle".to_owned(),
            "the injector, or cert-manager's ca-injector, writes it: look at its log",
        );
    }
    let shown = match secret {
        Ok(Some(shown)) => shown,
        Ok(None) => {
            return failed(
                "there is no Secret with a certificate".to_owned(),
                "the injector makes it: look at its log and at certificate.secret of its configuration",
            );
        }
        Err(reason) => return Finding::skipped(CHECK, reason),
    };
    let seen = match verified(&shown.chain, bundle, name, now) {
        Ok(seen) => seen,
        Err(error) => {
            return failed(
                format!("the API server will not believe it, by its caBundle: {error}"),
                "restart the injector; with certificates of others see that caBundle is that of their authority",
            );
        }
    };
    let left = seen.not_after - now;
    let days = left / DAY;
    if left < LEFT && left < (seen.not_after - seen.not_before) / 3 {
        let message = format!("it ends in {days} days and was not renewed in time");
        return Finding::new(CHECK, Status::Warning, message, "look at the log of what renews it");
    }
    if shown.bundle.as_ref().is_some_and(|own| own.trim() != bundle.trim()) {
        return Finding::new(
            CHECK,
            Status::Warning,
            "caBundle is not the Secret's ca.crt, yet believes in what is served",
            "while an authority is renewed that is so for seconds; later something else writes caBundle",
        );
    }
    Finding::ok(CHECK, format!("good for {name}, {days} days left, signed by what caBundle has"))
}

/// What the first certificate of a chain says, if a client that believes in `bundle` would accept it for `name`.
fn verified(chain: &str, bundle: &str, name: &str, now: i64) -> Result<Seen, String> {
    let read = |pem: &str| {
        let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        all.map_err(|error| format!("not PEM: {error}"))
    };
    let (chain, mut roots) = (read(chain)?, RootCertStore::empty());
    let (leaf, others) = chain.split_first().ok_or("there is no certificate")?;
    roots.add_parsable_certificates(read(bundle)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let server = ServerName::try_from(name).map_err(|error| error.to_string())?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now.unsigned_abs()));
    verifier.verify_server_cert(leaf, others, &server, &[], now).map_err(|error| error.to_string())?;
    look(leaf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::Material;

    const NOW: i64 = 1_800_000_000;
    const NAME: &str = "injector.sidelight.svc";

    fn material(days: u64, names: &[&str]) -> Material {
        let day = Duration::from_secs(86_400);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Material::new("", &names, NOW, day * 3650, day * u32::try_from(days).unwrap()).unwrap()
    }

    fn shown(material: &Material) -> Shown {
        Shown { chain: material.certificate.clone(), bundle: Some(material.bundle.clone()) }
    }

    fn judged(bundle: &str, shown: &Shown, now: i64) -> (Status, String) {
        let finding = certificate(bundle, Ok(Some(shown)), NAME, now);
        (finding.status, finding.message)
    }

    #[test]
    fn what_the_api_server_will_believe_is_ok() {
        let material = material(90, &[NAME]);
        let (status, message) = judged(&material.bundle, &shown(&material), NOW);
        assert_eq!((status, message.contains("90 days left")), (Status::Ok, true), "{message}");
        // While an authority is renewed.
        let both = material.with_new_authority(NOW, Duration::from_secs(86_400 * 3650)).unwrap();
        assert_eq!(judged(&both.bundle, &shown(&both), NOW).0, Status::Ok);
        assert_eq!(judged(&both.bundle, &shown(&material), NOW).0, Status::Warning);
    }

    #[test]
    fn a_certificate_of_another_authority_for_another_name_or_of_another_time_fails() {
        let fails = |bundle: &str, shown: &Shown, now, part: &str| {
            let (status, message) = judged(bundle, shown, now);
            assert!(status == Status::Failed && message.contains(part), "{message}");
        };
        let (good, other) = (material(90, &[NAME]), material(90, &[NAME]));
        fails(&other.bundle, &shown(&good), NOW, "UnknownIssuer");
        let named = material(90, &["injector.other.svc"]);
        fails(&named.bundle, &shown(&named), NOW, "not valid for name");
        fails(&good.bundle, &shown(&good), NOW - 86_400, "not valid yet");
        fails(&good.bundle, &shown(&good), NOW + 91 * 86_400, "expired");
        let broken = Shown { chain: "x".to_owned(), bundle: None };
        assert_eq!(judged(&good.bundle, &broken, NOW).0, Status::Failed);
        assert_eq!(judged(" ", &shown(&good), NOW).0, Status::Failed);
        assert_eq!(certificate(&good.bundle, Ok(None), NAME, NOW).status, Status::Failed);
    }

    #[test]
    fn a_renewal_that_is_late_is_a_warning_whatever_the_lifetime() {
        for (days, later, expected) in [
            (90, 59, Status::Ok),
            (90, 61, Status::Warning),
            (3, 1, Status::Ok),
            (3, 2, Status::Warning),
            (365, 300, Status::Ok),
        ] {
            let material = material(days, &[NAME]);
            let now = NOW + later * DAY + 3600;
            assert_eq!(judged(&material.bundle, &shown(&material), now).0, expected, "{days} {later}");
        }
    }

    #[test]
    fn a_secret_that_may_not_be_read_is_no_failure() {
        let finding = certificate("x", Err("secrets is forbidden"), NAME, NOW);
        assert_eq!(finding.line(), "skipped  certificate: not checked: secrets is forbidden");
    }
}
