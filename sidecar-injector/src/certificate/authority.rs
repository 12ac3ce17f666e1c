//! Certificates of our own making, and what certificates say of themselves. Pure but for the randomness of keys.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Clocks of API servers may be behind by so much.
const BACKDATED: Duration = Duration::from_secs(300);

/// All that replicas share. Texts are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// The authorities that are to be believed, the newest first.
    pub bundle: String,
    /// The newest authority's key.
    pub ca_key: String,
    /// The certificate that is served.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its subject.
    pub subject: String,
    /// Who has signed it.
    pub issuer: String,
    /// Seconds since the epoch.
    pub not_before: i64,
    /// Seconds since the epoch.
    pub not_after: i64,
    /// DNS names that it is for.
    pub names: Vec<String>,
}

/// Reads a certificate.
///
/// # Errors
/// Why it is none.
pub fn look(certificate: &CertificateDer<'_>) -> Result<Seen, String> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| format!("not a certificate: {error}"))?;
    let names = parsed.subject_alternative_name().ok().flatten().map(|names| {
        let dns = names.value.general_names.iter().filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        dns.collect()
    });
    Ok(Seen {
        subject: parsed.subject().to_string(),
        issuer: parsed.issuer().to_string(),
        not_before: parsed.validity().not_before.timestamp(),
        not_after: parsed.validity().not_after.timestamp(),
        names: names.unwrap_or_default(),
    })
}

/// Reads every certificate of a PEM text.
///
/// # Errors
/// Why it has none.
pub(super) fn look_at_all(pem: &str) -> Result<Vec<Seen>, String> {
    let seen: Vec<Seen> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|certificate| look(&certificate.map_err(|error| format!("not PEM: {error}"))?))
        .collect::<Result<_, _>>()?;
    if seen.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(seen) }
}

// === impl Material ===

impl Material {
    /// A new authority and a certificate of it. The authorities that are `known` stay believed: replicas may show
    /// certificates of theirs for a while.
    ///
    /// # Errors
    /// As rcgen says.
    pub fn new(
        known: &str,
        names: &[String],
        now: i64,
        ca_lifetime: Duration,
        lifetime: Duration,
    ) -> Result<Self, String> {
        let bundle = known.to_owned();
        let old = Material { bundle, ca_key: String::new(), certificate: String::new(), key: String::new() };
        old.with_new_authority(now, ca_lifetime)?.with_new_certificate(names, now, lifetime)
    }

    /// The same with a new authority before the old ones that are still good. The certificate stays one of an old one: the
    /// new authority has to be known before anything of it is shown.
    ///
    /// # Errors
    /// As rcgen says.
    pub fn with_new_authority(&self, now: i64, ca_lifetime: Duration) -> Result<Self, String> {
        let (mut bundle, ca_key) = authority(now, ca_lifetime)?;
        for old in authorities(&self.bundle) {
            if look_at_all(&old).is_ok_and(|seen| seen[0].not_after > now) {
                bundle.push_str(&old);
            }
        }
        Ok(Material { bundle, ca_key, ..self.clone() })
    }

    /// The same with a new certificate of the newest authority.
    ///
    /// # Errors
    /// As rcgen says, or what is wrong with the authority.
    pub fn with_new_certificate(
        &self,
        names: &[String],
        now: i64,
        lifetime: Duration,
    ) -> Result<Self, String> {
        let text = |error: rcgen::Error| error.to_string();
        let newest = authorities(&self.bundle).into_iter().next().ok_or("there is no authority")?;
        let issuer = Issuer::from_ca_cert_pem(&newest, KeyPair::from_pem(&self.ca_key).map_err(text)?)
            .map_err(text)?;
        let key = KeyPair::generate().map_err(text)?;
        let mut params = CertificateParams::new(names).map_err(text)?;
        params.distinguished_name = named(names.first().map_or("", String::as_str));
        (params.not_before, params.not_after) = validity(now, lifetime)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer).map_err(text)?;
        Ok(Material { certificate: certificate.pem(), key: key.serialize_pem(), ..self.clone() })
    }

    /// Whether both keys are those of their certificates.
    ///
    /// # Errors
    /// Which is not.
    pub fn check(&self) -> Result<(), String> {
        has_key(&self.bundle, &self.ca_key).map_err(|error| format!("the authority's key: {error}"))?;
        has_key(&self.certificate, &self.key).map_err(|error| format!("the certificate's key: {error}"))
    }

    /// What its certificate says, and its newest authority.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn look(&self) -> Result<(Seen, Seen), String> {
        let first = |pem: &str| Ok::<_, String>(look_at_all(pem)?.swap_remove(0));
        Ok((first(&self.certificate)?, first(&self.bundle)?))
    }
}

/// Whether a key is that of the first certificate of a text.
fn has_key(certificate: &str, key: &str) -> Result<(), String> {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
        .map_err(|error| format!("no certificate to compare it with: {error}"))?;
    let (_, certificate) =
        X509Certificate::from_der(&certificate).map_err(|error| format!("not a certificate: {error}"))?;
    let key = KeyPair::from_pem(key).map_err(|error| error.to_string())?;
    let is_its = certificate.public_key().raw == key.subject_public_key_info();
    if is_its { Ok(()) } else { Err("it belongs to another certificate".to_owned()) }
}

/// The certificates of a bundle, each by itself.
fn authorities(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let parts = bundle.split_inclusive(END).filter(|part| part.contains(END));
    parts.map(|part| format!("{}\n", part.trim())).collect()
}

/// A certificate that signs others, and its key.
fn authority(now: i64, lifetime: Duration) -> Result<(String, String), String> {
    let text = |error: rcgen::Error| error.to_string();
    let key = KeyPair::generate().map_err(text)?;
    let mut params = CertificateParams::default();
    // Of its own: it tells whose certificates are whose.
    let id: u64 = key.public_key_raw().iter().rev().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte));
    params.distinguished_name = named(&format!("sidelight-injector-ca-{id:016x}"));
    params.serial_number = Some(SerialNumber::from(id >> 1));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(now, lifetime)?;
    let certificate = params.self_signed(&key).map_err(text)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

fn validity(now: i64, lifetime: Duration) -> Result<(OffsetDateTime, OffsetDateTime), String> {
    let now = OffsetDateTime::from_unix_timestamp(now).map_err(|error| error.to_string())?;
    Ok((now - BACKDATED, now + lifetime))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;
    const DAY: Duration = Duration::from_secs(86_400);

    fn names() -> Vec<String> {
        vec!["injector.sidelight.svc".to_owned()]
    }

    #[test]
    fn a_certificate_is_of_the_newest_authority_and_for_the_service() {
        let material = Material::new("", &names(), NOW, 10 * DAY, DAY).unwrap();
        let (certificate, authority) = material.look().unwrap();
        assert_eq!(material.check(), Ok(()));
        assert_eq!(certificate.issuer, authority.subject);
        assert_eq!(certificate.names, names());
        assert_eq!((certificate.not_before, certificate.not_after), (NOW - 300, NOW + 86_400));
        assert_eq!(authority.not_after, NOW + 864_000);
    }

    #[test]
    fn a_new_authority_stands_before_the_old_one_and_signs_the_next_certificate() {
        let old = Material::new("", &names(), NOW, 10 * DAY, DAY).unwrap();
        let both = old.with_new_authority(NOW, 10 * DAY).unwrap();
        assert_eq!(look_at_all(&both.bundle).unwrap().len(), 2);
        assert!(both.bundle.ends_with(&old.bundle));
        assert_eq!(both.certificate, old.certificate);
        let new = both.with_new_certificate(&names(), NOW, DAY).unwrap();
        let (certificate, authority) = new.look().unwrap();
        assert_eq!(certificate.issuer, authority.subject);
        assert_ne!(authority.subject, old.look().unwrap().1.subject);
        // What has ended is left out.
        let later = both.with_new_authority(NOW + 11 * 86_400, 10 * DAY).unwrap();
        assert_eq!(look_at_all(&later.bundle).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        assert!(look_at_all("").unwrap_err().contains("no certificate"));
        let broken =
            Material { certificate: "x".to_owned(), ..Material::new("", &names(), NOW, DAY, DAY).unwrap() };
        assert!(broken.look().is_err());
    }

    #[test]
    fn a_key_of_another_certificate_is_told() {
        let [one, other] = [(); 2].map(|()| Material::new("", &names(), NOW, DAY, DAY).unwrap());
        let error = Material { key: other.key, ..one.clone() }.check().unwrap_err();
        assert_eq!(error, "the certificate's key: it belongs to another certificate");
        let error = Material { ca_key: "x".to_owned(), ..one }.check().unwrap_err();
        assert!(error.starts_with("the authority's key: "), "{error}");
    }
}
