//! TLS towards receivers.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::TlsConnector;

use crate::config::Tls;

/// Where systems keep the certificates that they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client that does not know yet whom it trusts.
///
/// # Errors
/// When ring has no version of the protocol: a defect.
pub fn client() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

/// Reads the files and prepares a connector; done for every connection, so that renewed certificates are taken.
///
/// # Errors
/// The file that is missing or wrong.
pub fn connector(config: &Tls) -> io::Result<TlsConnector> {
    let bundle = match &config.ca_file {
        Some(file) => file.as_path(),
        None => SYSTEM_BUNDLES.iter().map(Path::new).find(|file| file.exists()).ok_or_else(|| {
            io::Error::other(format!(
                "no trusted certificates: set tls.ca_file; none of {} is there",
                SYSTEM_BUNDLES.join(", ")
            ))
        })?,
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(bundle)?);
    let builder = client().map_err(io::Error::other)?.with_root_certificates(roots);
    let client = match (&config.cert_file, &config.key_file) {
        (Some(certificate), Some(key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, key_der)
                .map_err(|error| unusable(certificate, error))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(client)))
}

/// The name that the receiver's certificate must have: the configured one, else the host of its address.
///
/// # Errors
/// When it is no valid name.
pub fn server_name(config: &Tls, address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let name = config.server_name.as_deref().unwrap_or_else(|| host.trim_matches(['[', ']']));
    ServerName::try_from(name.to_owned())
        .map_err(|_| io::Error::other(format!("{name:?} is no valid server name; set tls.server_name")))
}

pub(crate) fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(unusable(file, "it holds no certificate")),
        Err(error) => Err(unusable(file, error)),
    }
}

pub(crate) fn unusable(file: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("cannot use {}: {error}", file.display()))
}
