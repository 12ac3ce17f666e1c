//! How the agent shows the servers of the cluster who it is.

use kube::Config;
use secrecy::ExposeSecret;

/// The bearer token that the API server would be shown now: the service account's in a pod, a kubeconfig's elsewhere. Looked
/// for anew each time, for the kubelet replaces a token before it expires.
///
/// # Errors
/// Why there is none.
pub async fn token() -> Result<String, String> {
    let missing = |reason: &dyn std::fmt::Display| format!("there is no token for Kubernetes: {reason}");
    let auth = Config::infer().await.map_err(|error| missing(&error))?.auth_info;
    match (auth.token, auth.token_file) {
        (Some(token), _) => Ok(token.expose_secret().to_owned()),
        (None, Some(file)) => match std::fs::read_to_string(&file) {
            Ok(token) => Ok(token.trim().to_owned()),
            Err(error) => Err(missing(&format_args!("{file}: {error}"))),
        },
        (None, None) => Err(missing(&"the kubeconfig has none")),
    }
}
