//! `metrics.pull`: scraping by others.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::mistakes::Mistakes;
use crate::config::section::Section;
use crate::config::{Pull, PullAuth, PullTls};
use crate::metrics::pull::server_config;

pub(super) fn pull(mut section: Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Pull {
    let pull = Pull {
        listen: section.read("listen", String::new(), mistakes, listen),
        auth: section.read("auth", PullAuth::None, mistakes, |text| match text {
            "none" => Ok(PullAuth::None),
            "token" => Ok(PullAuth::Token),
            "mtls" => Ok(PullAuth::Mtls),
            other => Err(format!("{other:?} is not allowed: none, token or mtls")),
        }),
        tls: pull_tls(section.section("tls", mistakes), files, mistakes),
    };
    let has_authority = pull.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
    let is_local = pull.listen.parse().is_ok_and(|address: SocketAddr| address.ip().is_loopback());
    if pull.listen.is_empty() {
        if pull.auth != PullAuth::None || pull.tls.is_some() {
            mistakes.add(
                &section.path("listen"),
                "needed: without it nobody can scrape, whatever auth and tls say",
            );
        }
    } else if (pull.auth == PullAuth::Mtls) != has_authority {
        mistakes.add(&section.path("auth"), "mtls needs tls.client_ca_file, and is what that is for");
    } else if pull.auth == PullAuth::Token && pull.tls.is_none() && !is_local {
        mistakes.add(
            &section.path("auth"),
            "tokens would come in clear: set tls, or listen on a loopback address",
        );
    }
    section.finish(mistakes);
    pull
}

fn pull_tls(mut section: Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Option<PullTls> {
    let mut file = |key: &'static str| {
        let file = Some(section.text(key, "", mistakes)).filter(|text| !text.is_empty()).map(PathBuf::from);
        files.extend(file.clone());
        file
    };
    let (certificate, key, client_ca_file) = (file("cert_file"), file("key_file"), file("client_ca_file"));
    let tls = match (certificate, key) {
        (Some(cert_file), Some(key_file)) => {
            let tls = PullTls { cert_file, key_file, client_ca_file };
            if mistakes.reads_files()
                && let Err(error) = server_config(&tls)
            {
                mistakes.add(&section.path("cert_file"), error);
            }
            Some(tls)
        }
        (None, None) if client_ca_file.is_none() => None,
        _ => {
            mistakes.add(&section.path("cert_file"), "cert_file and key_file belong together: set both");
            None
        }
    };
    section.finish(mistakes);
    tls
}

fn listen(text: &str) -> Result<String, String> {
    if text.is_empty() || text.parse::<SocketAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no address; write for example [::]:9616"))
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn every_mistake_is_told_with_its_path() {
        for (pull, mistake) in [
            ("listen: here", "listen: \"here\" is no address"),
            ("auth: basic", "auth: \"basic\" is not allowed: none, token or mtls"),
            ("listen: '[::]:1', auth: mtls", "auth: mtls needs tls.client_ca_file"),
            ("listen: '[::]:1', auth: token", "auth: tokens would come in clear"),
            ("auth: token", "listen: needed"),
            ("tls: { cert_file: a }", "tls.cert_file: cert_file and key_file belong together"),
            ("tls: { cert_file: /none, key_file: /none }", "tls.cert_file: cannot use /none"),
        ] {
            let text = format!(
                "node: n\nlogs: {{ outputs: [ {{ stdout: {{}} }} ] }}\nmetrics: {{ pull: {{ {pull} }} }}"
            );
            let found = Config::parse(&text, &|_| None).unwrap_err();
            let mistake = format!("metrics.pull.{mistake}");
            assert!(found.iter().any(|line| line.starts_with(&mistake)), "{pull}: {found:?}");
        }
    }
}
