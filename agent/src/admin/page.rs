//! The status page: outputs, then files, the furthest behind first.

use std::fmt::Write;

use crate::admin::View;
use crate::admin::status;

const STYLE: &str = "body{font:14px/1.5 system-ui,sans-serif;margin:2rem;color:#1c2330}h1{font-size:1.3rem}h2{font-size:1rem;margin-top:2rem}\
table{border-collapse:collapse}td,th{padding:.2rem 1rem .2rem 0;text-align:left;border-bottom:1px solid #dde2ea}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.down{color:#b3261e;font-weight:600}.up{color:#1b7f3b}\
@media(prefers-color-scheme:dark){body{background:#14181f;color:#dbe2ec}td,th{border-color:#2b3340}}";
/// More would be slow to read and to render; `sidelight files` shows all.
const MAX_FILES: usize = 500;

pub(super) fn render(view: &View) -> String {
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>Sidelight on {node}</title><style>{STYLE}</style><h1>Sidelight {version} on {node}</h1><h2>Outputs</h2>\
         <table><tr><th>name<th>kind<th>state<th class=n>delivered<th class=n>dropped<th class=n>in flight<th class=n>behind<th>last error",
        node = escape(&view.config.node),
        version = env!("CARGO_PKG_VERSION"),
    );
    for output in status::outputs(view).outputs {
        let state = if output.up { "up" } else { "down" };
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td class={state}>{state}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td>{}",
            escape(&output.name),
            escape(&output.kind),
            output.amount(output.delivered),
            output.dropped_text(),
            output.amount(output.in_flight),
            bytes_text(output.lag_bytes),
            escape(output.last_error.as_deref().unwrap_or_default()),
        );
    }
    page.push_str("</table><h2>Files</h2><table><tr><th>namespace<th>pod<th>container<th>file<th>state<th class=n>size<th class=n>behind");
    let mut files = status::files(view).files;
    let behind =
        |file: &status::FileStatus| file.outputs.values().map(|output| output.lag_bytes).max().unwrap_or(0);
    files.sort_by_key(|file| std::cmp::Reverse(behind(file)));
    let hidden = files.len().saturating_sub(MAX_FILES);
    for file in files.iter().take(MAX_FILES) {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td class=n>{}<td class=n>{}",
            escape(&file.namespace),
            escape(&file.pod),
            escape(&file.container),
            escape(name),
            file.state,
            bytes_text(file.size),
            bytes_text(behind(file)),
        );
    }
    page.push_str("</table>");
    if hidden > 0 {
        let _ = write!(page, "<p>{hidden} more: <code>sidelight files</code>");
    }
    page
}

/// A number of bytes for people.
pub(crate) fn bytes_text(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
