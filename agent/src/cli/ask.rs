//! Questions to a running agent.

use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use sidelight_runtime::exit;
use sidelight_runtime::terminal::{print, say};

use super::Form;
use super::table::Table;
use crate::admin::explain::Explanation;
use crate::admin::page::bytes_text;
use crate::admin::status::{Files, Outputs};
use crate::admin::targets::Targets;

/// The admin server answers from memory; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer is never longer: 5,000 files are about 3 MiB.
const MAX_ANSWER: usize = 256 << 20;

pub(super) fn files(admin: &str, form: Form) -> u8 {
    answer(admin, "/api/v1/files", form, |files: &Files| {
        let mut table = Table::new(&[
            "NAMESPACE",
            "POD",
            "CONTAINER",
            "FILE",
            "STATE",
            "SIZE",
            "OUTPUT",
            "READ",
            "ACKED",
            "BEHIND",
        ]);
        for file in &files.files {
            let name = file.path.rsplit('/').next().unwrap_or_default();
            let about = [&file.namespace, &file.pod, &file.container, name, &file.state].map(str::to_owned);
            for (output, progress) in &file.outputs {
                let numbers = [progress.read, progress.acked, progress.lag_bytes].map(bytes_text);
                let mut row = about.to_vec();
                row.extend([bytes_text(file.size), output.clone()]);
                row.extend(numbers);
                table.row(row);
            }
        }
        (table.render(), exit::SUCCESS)
    })
}

pub(super) fn targets(admin: &str, form: Form) -> u8 {
    answer(admin, "/api/v1/targets", form, |targets: &Targets| {
        let mut table = Table::new(&["NAMESPACE", "POD", "URL", "STATE", "SAMPLES", "SERIES", "REASON"]);
        for target in &targets.targets {
            table.row(vec![
                target.namespace.clone(),
                target.pod.clone(),
                target.url.clone(),
                target.state.clone(),
                target.samples.to_string(),
                target.series.to_string(),
                target.last_error.clone().unwrap_or_else(|| target.reason.clone()),
            ]);
        }
        (table.render(), exit::SUCCESS)
    })
}

pub(super) fn outputs(admin: &str, form: Form) -> u8 {
    answer(admin, "/api/v1/outputs", form, |outputs: &Outputs| {
        let mut table = Table::new(&[
            "OUTPUT",
            "KIND",
            "STATE",
            "DELIVERED",
            "DROPPED",
            "IN FLIGHT",
            "BEHIND",
            "LAST ERROR",
        ]);
        for output in &outputs.outputs {
            table.row(vec![
                output.name.clone(),
                output.kind.clone(),
                if output.up { "up" } else { "down" }.to_owned(),
                output.amount(output.delivered),
                output.dropped_text(),
                output.amount(output.in_flight),
                bytes_text(output.lag_bytes),
                output.last_error.clone().unwrap_or_default(),
            ]);
        }
        (table.render(), exit::SUCCESS)
    })
}

pub(super) fn explain(admin: &str, pod: &str, form: Form) -> u8 {
    if pod.split_once('/').is_none_or(|(namespace, name)| namespace.is_empty() || name.is_empty()) {
        say(&format!("{pod:?} names no pod; write NAMESPACE/NAME"));
        return exit::USAGE;
    }
    answer(admin, &format!("/api/v1/explain?pod={pod}"), form, |explanation: &Explanation| {
        let mut text = format!("{}: {}\n", explanation.pod, explanation.verdict);
        for container in &explanation.logs {
            let mark = if container.collected { "yes" } else { "no" };
            let file = container.file.iter().map(|file| format!(" file {file}")).collect::<String>();
            let name = &container.container;
            let name = if name.is_empty() { String::new() } else { format!(" container {name}") };
            text.push_str(&format!(" {name}{file}: {mark}: {}\n", container.reason));
            if !container.hint.is_empty() {
                text.push_str(&format!("    hint: {}\n", container.hint));
            }
        }
        for target in &explanation.metrics {
            let mark = if target.collected { "yes" } else { "no" };
            let url = if target.url.is_empty() { String::new() } else { format!(" {}", target.url) };
            text.push_str(&format!("  metrics{url}: {mark}: {}\n", target.reason));
            if !target.hint.is_empty() {
                text.push_str(&format!("    hint: {}\n", target.hint));
            }
        }
        let code = if explanation.verdict == "unknown pod" { exit::NEGATIVE } else { exit::SUCCESS };
        (text, code)
    })
}

/// Asks, and prints the answer as it came or as `render` makes it.
fn answer<T: DeserializeOwned>(
    admin: &str,
    path: &str,
    form: Form,
    render: impl Fn(&T) -> (String, u8),
) -> u8 {
    let answer = fetch(admin, path).and_then(|body| {
        Ok((
            serde_json::from_slice(&body).context("the answer is not understood; is it another version?")?,
            body,
        ))
    });
    match answer {
        Ok((value, body)) => {
            let (text, code) = render(&value);
            let printed = match form {
                Form::Table => print(&text),
                Form::Json => print(&format!("{}\n", String::from_utf8_lossy(&body))),
            };
            printed.max(code)
        }
        Err(error) => {
            say(&format!("cannot ask the agent at {admin}: {error:#}; is it running, is --admin right?"));
            exit::UNAVAILABLE
        }
    }
}

fn fetch(admin: &str, path: &str) -> anyhow::Result<Bytes> {
    let host = admin
        .strip_prefix("http://")
        .context("the URL must begin with http://")?
        .trim_end_matches('/')
        .to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(&host).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = hyper::Request::get(path).header("host", &host).body(Empty::<Bytes>::new())?;
        let ask = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| anyhow::anyhow!(error))?;
            anyhow::Ok((status, body.to_bytes()))
        };
        let served = async {
            // The connection ends when the answer is there; an error shows in the answer.
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        let (status, body) = tokio::select! {
            answer = ask => answer?,
            () = served => bail!("the connection ended"),
            () = tokio::time::sleep(PATIENCE) => bail!("no answer within {} s", PATIENCE.as_secs()),
        };
        if !status.is_success() {
            bail!("{status}: {}", String::from_utf8_lossy(&body).trim());
        }
        Ok(body)
    })
}
