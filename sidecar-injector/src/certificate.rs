//! The certificate that the API server is shown, and where it comes from. It changes while connections go on.

mod authority;
mod files;
mod managed;

pub use authority::{Material, Seen, look};
pub use files::follow_files;
pub use managed::Managed;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The certificate that is served now; none before there is one.
#[derive(Debug, Default)]
pub struct Served(RwLock<Option<Current>>);

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    /// Seconds since the epoch.
    not_before: i64,
    /// Seconds since the epoch.
    not_after: i64,
    chain_pem: String,
}

// === impl Served ===

impl Served {
    /// Serves a chain with its key, both PEM, from the next handshake on.
    ///
    /// # Errors
    /// What is wrong with them; what was served before goes on.
    pub fn set(&self, chain_pem: &str, key_pem: &str) -> Result<(), String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the certificate is not PEM: {error}"))?;
        let leaf = chain.first().ok_or("there is no certificate in it")?;
        let Seen { not_before, not_after, .. } = look(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|error| format!("the key is not PEM: {error}"))?;
        let key = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|error| format!("certificate and key cannot be used together: {error}"))?;
        let current = Current { key: Arc::new(key), not_before, not_after, chain_pem: chain_pem.to_owned() };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(current);
        Ok(())
    }

    /// Whether this very chain is served.
    pub fn is(&self, chain_pem: &str) -> bool {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().is_some_and(|current| current.chain_pem == chain_pem)
    }

    /// When it ends, in seconds since the epoch.
    pub fn not_after(&self) -> Option<i64> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|current| current.not_after)
    }

    /// Whether there is one, and this is its time.
    pub fn is_valid(&self) -> bool {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().is_some_and(|current| (current.not_before..current.not_after).contains(&now()))
    }
}

impl ResolvesServerCert for Served {
    /// Whatever name is asked for: there is only one.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|current| current.key.clone())
    }
}

/// Server settings with this certificate. HTTP/1.1 only: the API server speaks no other to webhooks.
///
/// # Errors
/// As rustls says.
pub fn tls(served: Arc<Served>) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Seconds since the epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
