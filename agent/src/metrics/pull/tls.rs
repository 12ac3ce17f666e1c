//! TLS of who is scraped.

use std::io;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::config::PullTls;
use crate::delivery::tls::{certificates, unusable};

/// What the files say: with a client's authority, only who has a certificate of it is let in.
///
/// # Errors
/// The file that is missing or wrong.
pub fn server_config(config: &PullTls) -> io::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let builder = match &config.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(file, error))?)
        }
    };
    let key =
        PrivateKeyDer::from_pem_file(&config.key_file).map_err(|error| unusable(&config.key_file, error))?;
    let config_of = builder.with_single_cert(certificates(&config.cert_file)?, key);
    Ok(Arc::new(config_of.map_err(|error| unusable(&config.cert_file, error))?))
}
