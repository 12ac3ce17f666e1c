//! A certificate in files that somebody else renews: cert-manager, by a Secret that is mounted.

use std::path::Path;
use std::time::Duration;

use super::Served;

/// The kubelet takes a minute to bring a changed Secret; nobody waits for these seconds.
const INTERVAL: Duration = Duration::from_secs(5);

/// Serves what the files hold, now and whenever they change.
pub async fn follow_files(cert_file: &Path, key_file: &Path, served: &Served) {
    let mut said = String::new();
    loop {
        let result = match (std::fs::read_to_string(cert_file), std::fs::read_to_string(key_file)) {
            (Ok(chain), Ok(_)) if served.is(&chain) => Ok(()),
            (Ok(chain), Ok(key)) => served.set(&chain, &key),
            (Err(error), _) => Err(format!("cannot read {}: {error}", cert_file.display())),
            (_, Err(error)) => Err(format!("cannot read {}: {error}", key_file.display())),
        };
        match result {
            Ok(()) => said.clear(),
            Err(error) if error == said => {}
            Err(error) => {
                // The two files are renewed together, but not read together: the next look may find them in step.
                tracing::warn!(error, "the certificate in the files cannot be used; trying again every 5 s");
                said = error;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
