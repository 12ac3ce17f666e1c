//! `remote_write`: a receiver of samples, and how it is shown who sends them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

use super::MINUTES;
use super::outputs::{secret, tls};
use super::relabel::relabel;
use crate::config::mistakes::Mistakes;
use crate::config::section::Section;
use crate::config::{BasicAuth, OAuth2, Protocol, RemoteWrite, SigV4, Tls};
use crate::delivery::http::Proxy;
use crate::delivery::secret::Secret;
use crate::delivery::tls::connector;

pub(super) fn remote_write(
    mut section: Section,
    files: &mut Vec<PathBuf>,
    mistakes: &mut Mistakes,
) -> RemoteWrite {
    // What a sidecar writes counts against its pod, which is evicted for too much.
    let spool = if mistakes.in_sidecar() { 32 << 20 } else { 256 << 20 };
    let output = RemoteWrite {
        url: section.read("url", String::new(), mistakes, url),
        protocol: section.read("protocol", Protocol::Auto, mistakes, |text| match text {
            "auto" => Ok(Protocol::Auto),
            "1.0" => Ok(Protocol::V1),
            "2.0" => Ok(Protocol::V2),
            other => Err(format!("{other:?} is not allowed: auto, 1.0 or 2.0")),
        }),
        headers: headers(&mut section, mistakes),
        basic_auth: basic_auth(&mut section, files, mistakes),
        bearer_token: secret(&mut section, "bearer_token", "bearer_token_file", files, mistakes),
        oauth2: oauth2(&mut section, files, mistakes),
        sigv4: sigv4(&mut section, files, mistakes),
        proxy_url: proxy_url(&mut section, files, mistakes),
        tls: tls(section.section("tls", mistakes), files, mistakes),
        relabel: relabel(&mut section, mistakes),
        flush_interval: section.duration(
            "flush_interval",
            Duration::from_secs(5),
            10..=10 * MINUTES,
            mistakes,
        ),
        spool: section.size("spool", spool, 0..=1 << 40, mistakes),
    };
    if (1..LEAST_SPOOL).contains(&output.spool) {
        mistakes.add(&section.path("spool"), "0B, or at least 256KiB");
    }
    if output.url.is_empty() {
        mistakes.add(&section.path("url"), "needed: for example http://prometheus:9090/api/v1/write");
    }
    let ways = [
        ("basic_auth", output.basic_auth.is_some()),
        ("bearer_token", output.bearer_token.is_some()),
        ("oauth2", output.oauth2.is_some()),
        ("sigv4", output.sigv4.is_some()),
    ];
    let mut given = ways.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name);
    if let (Some(first), Some(second)) = (given.next(), given.next()) {
        mistakes.add(&section.path(first), format!("set either this or {second}, not both"));
    }
    let fits = |token: &Secret| HeaderValue::try_from(token.reveal()).is_ok();
    if !output.bearer_token.as_ref().is_none_or(fits) {
        mistakes
            .add(&section.path("bearer_token"), "it cannot stand in a header: is there a line break in it?");
    }
    check_tls(&section, &output.url, &output.tls, mistakes);
    section.finish(mistakes);
    output
}

/// TLS of a client whose server is known by its URL.
fn check_tls(section: &Section, url: &str, tls: &Tls, mistakes: &mut Mistakes) {
    if url.starts_with("https:") {
        if mistakes.reads_files()
            && let Err(error) = connector(tls)
        {
            mistakes.add(&section.path("tls"), error);
        }
    } else if tls.enabled {
        mistakes.add(
            &section.path("tls"),
            "the URL does not begin with https: samples and secrets would go out in clear",
        );
    }
    if tls.server_name.is_some() {
        mistakes.add(
            &section.path("tls.server_name"),
            "not for remote write: the certificate must have the URL's host",
        );
    }
}

/// Less has no room for a request and the next one.
const LEAST_SPOOL: u64 = 256 << 10;

/// Headers that a request has anyway.
const OWN_HEADERS: [&str; 7] = [
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "user-agent",
    "x-prometheus-remote-write-version",
];

fn headers(section: &mut Section, mistakes: &mut Mistakes) -> BTreeMap<String, Secret> {
    let path = section.path("headers");
    let headers = section.mapping("headers", mistakes);
    let mut seen = BTreeSet::new();
    for (name, value) in &headers {
        let lower = name.to_ascii_lowercase();
        if !seen.insert(lower.clone()) {
            mistakes.add(&path, format!("{name} stands here twice"));
        }
        if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
            mistakes.add(&path, format!("{name:?} is no header of HTTP, or its value is none"));
        } else if lower == "authorization" {
            mistakes.add(&path, "Authorization is set by basic_auth, bearer_token, oauth2 or sigv4");
        } else if OWN_HEADERS.contains(&lower.as_str()) {
            mistakes.add(&path, format!("{name} is set by remote write itself"));
        }
    }
    headers.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()
}

fn basic_auth(section: &mut Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Option<BasicAuth> {
    let mut inner = section.optional_section("basic_auth", mistakes)?;
    let auth = BasicAuth {
        username: inner.text("username", "", mistakes),
        password: secret(&mut inner, "password", "password_file", files, mistakes),
    };
    if auth.username.contains(':') {
        mistakes.add(&inner.path("username"), "a user's name cannot have a colon (RFC 7617)");
    }
    inner.finish(mistakes);
    (!auth.username.is_empty() || auth.password.is_some()).then_some(auth)
}

/// The client credentials grant (RFC 6749, section 4.4), with Prometheus's keys.
fn oauth2(section: &mut Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Option<OAuth2> {
    let mut inner = section.optional_section("oauth2", mistakes).filter(|inner| !inner.is_empty())?;
    let params = inner.mapping("endpoint_params", mistakes);
    let oauth2 = OAuth2 {
        client_id: inner.text("client_id", "", mistakes),
        client_secret: secret(&mut inner, "client_secret", "client_secret_file", files, mistakes),
        token_url: inner.read("token_url", String::new(), mistakes, url),
        scopes: inner.texts("scopes", &[], mistakes),
        endpoint_params: params.into_iter().map(|(name, value)| (name, Secret::new(value))).collect(),
        proxy_url: proxy_url(&mut inner, files, mistakes),
        tls: tls(inner.section("tls", mistakes), files, mistakes),
    };
    check_tls(&inner, &oauth2.token_url, &oauth2.tls, mistakes);
    for (key, text) in [("client_id", &oauth2.client_id), ("token_url", &oauth2.token_url)] {
        if text.is_empty() {
            mistakes.add(&inner.path(key), "needed");
        }
    }
    inner.finish(mistakes);
    Some(oauth2)
}

fn sigv4(section: &mut Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Option<SigV4> {
    let mut inner = section.optional_section("sigv4", mistakes).filter(|inner| !inner.is_empty())?;
    let sigv4 = SigV4 {
        region: inner.text("region", "", mistakes),
        access_key: inner.text("access_key", "", mistakes),
        secret_key: secret(&mut inner, "secret_key", "secret_key_file", files, mistakes),
        profile: inner.text("profile", "", mistakes),
        role_arn: inner.text("role_arn", "", mistakes),
    };
    if sigv4.region.is_empty() {
        mistakes.add(&inner.path("region"), "needed: for example ${AWS_REGION}");
    }
    if sigv4.access_key.is_empty() == sigv4.secret_key.is_some() {
        mistakes.add(&inner.path("access_key"), "set this and secret_key, or neither");
    }
    inner.finish(mistakes);
    Some(sigv4)
}

fn proxy_url(section: &mut Section, files: &mut Vec<PathBuf>, mistakes: &mut Mistakes) -> Option<Secret> {
    let is_read = mistakes.reads_files() || !section.has("proxy_url_file");
    let url = secret(section, "proxy_url", "proxy_url_file", files, mistakes)?;
    if is_read && let Err(error) = Proxy::parse(url.reveal()) {
        mistakes.add(&section.path("proxy_url"), error);
    }
    Some(url)
}

/// A scheme that is not known and a host that does not answer are for the run to tell: they may be mended there.
fn url(text: &str) -> Result<String, String> {
    match text.parse::<Uri>() {
        Ok(url) if url.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
            Err("a URL with a user in it would show the password: give the secret by its own key".to_owned())
        }
        Ok(url) if url.scheme().is_some() && url.host().is_some() => Ok(text.to_owned()),
        // It may have a password in it.
        _ if text.contains('@') => Err("this is no URL".to_owned()),
        _ => Err(format!("{text:?} is no URL; write for example http://prometheus:9090/api/v1/write")),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn every_mistake_is_told_with_its_path() {
        for (remote_write, mistake) in [
            ("", "url: needed"),
            ("url: prometheus", "url: \"prometheus\" is no URL"),
            ("url: 'http://a', tls: { enabled: true }", "tls: the URL"),
            ("url: 'http://u:p@a'", "url: a URL with a user"),
            ("url: 'http://a', headers: { Authorization: x }", "headers: Authorization is set by"),
            ("url: 'http://a', headers: { 'a b': x }", "headers: \"a b\" is no header"),
            ("url: 'http://a', bearer_token: t, basic_auth: { username: u }", "basic_auth: set either"),
            ("url: 'http://a', spool: 1KiB", "spool: 0B, or"),
            ("url: 'http://a', protocol: '3.0'", "protocol: \"3.0\" is not allowed"),
            (
                "url: 'http://a', bearer_token: t, sigv4: { region: r }",
                "bearer_token: set either this or sigv4",
            ),
            ("url: 'http://u:p w@a'", "url: this is no URL"),
            ("url: 'http://a', bearer_token: \"a\\nb\"", "bearer_token: it cannot stand in a header"),
            ("url: 'http://a', sigv4: { region: '' }", "sigv4.region: needed"),
            ("url: 'http://a', headers: { a: x, A: y }", "headers: "),
            ("url: 'http://a', sigv4: { access_key: k }", "sigv4.access_key: set this and secret_key"),
            ("url: 'http://a', sigv4: { profile: p }", "sigv4.region: needed"),
            ("url: 'http://a', oauth2: { client_id: c }", "oauth2.token_url: needed"),
            ("url: 'http://a', proxy_url: 'socks5://p:1'", "proxy_url: no URL of a proxy"),
        ] {
            let text = format!(
                "node: n\nlogs: {{ outputs: [ {{ stdout: {{}} }} ] }}\nmetrics: {{ outputs: [ {{ remote_write: {{ {remote_write} }} }} ] }}"
            );
            let found = Config::parse(&text, &|_| None).unwrap_err();
            let mistake = format!("metrics.outputs[0].remote_write.{mistake}");
            assert!(found.iter().any(|line| line.starts_with(&mistake)), "{remote_write}: {found:?}");
        }
    }
}
