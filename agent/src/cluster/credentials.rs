//! How the agent shows the servers of the cluster who it is.

use std::path::PathBuf;

use kube::Config;
use secrecy::{ExposeSecret, SecretString};

/// A bearer token: the service account's in a pod, a kubeconfig's elsewhere.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// In a file. The kubelet writes another one there before the token expires.
    File(PathBuf),
    /// As it stands in a kubeconfig.
    Fixed(SecretString),
    /// There is none, and why.
    Missing(String),
}

// === impl Credentials ===

impl Credentials {
    /// What the API server is shown, if that is a token.
    pub async fn infer() -> Self {
        match Config::infer().await.map(|config| config.auth_info) {
            Ok(auth) => match (auth.token_file, auth.token) {
                (Some(file), _) => Credentials::File(file.into()),
                (None, Some(token)) => Credentials::Fixed(token),
                (None, None) => Credentials::Missing("the kubeconfig has no token".to_owned()),
            },
            Err(error) => Credentials::Missing(error.to_string()),
        }
    }

    /// The token of now.
    ///
    /// # Errors
    /// Why there is none.
    pub fn token(&self) -> Result<String, String> {
        match self {
            Credentials::File(file) => match std::fs::read_to_string(file) {
                Ok(token) => Ok(token.trim().to_owned()),
                Err(error) => Err(format!("cannot read the token in {}: {error}", file.display())),
            },
            Credentials::Fixed(token) => Ok(token.expose_secret().to_owned()),
            Credentials::Missing(reason) => Err(format!("there is no token for Kubernetes: {reason}")),
        }
    }
}
