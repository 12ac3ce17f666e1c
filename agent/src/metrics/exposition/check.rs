//! The strict reading of a whole page, for those who write exporters: every rule of the format, the first break of one told
//! with its place. A scrape asks for less.

mod family;
mod points;

use std::borrow::Cow;
use std::collections::HashSet;

use super::series::metric_name;
use super::{Dialect, EXEMPLAR_CHARACTERS, Fault, Line, PageFault, Sample, Series};
use crate::metrics::exposition::check::family::Family;

/// What is wrong, and at which byte of the line if it is one place.
struct Problem {
    at: Option<usize>,
    what: String,
}

/// An OpenMetrics page, as far as it is read.
#[derive(Default)]
struct Page {
    family: Option<Family>,
    /// Names that earlier families have, with all their suffixes.
    taken: HashSet<String>,
    ended: bool,
}

/// Reads a page.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(page: &[u8], dialect: Dialect) -> Result<(), PageFault> {
    let lines: Vec<&[u8]> = page.strip_suffix(b"\n").unwrap_or(page).split(|byte| *byte == b'\n').collect();
    let mut read = Page::default();
    for (index, line) in lines.iter().enumerate() {
        let result = match dialect {
            Dialect::Text => text_line(line),
            Dialect::OpenMetrics => read.line(line),
        };
        result.map_err(|problem| problem.on(index + 1))?;
    }
    match dialect {
        Dialect::Text => Ok(()),
        Dialect::OpenMetrics => read.end().map_err(|problem| problem.on(lines.len())),
    }
}

/// In text, a line stands for itself.
fn text_line(line: &[u8]) -> Result<(), Problem> {
    match Line::read(line, Dialect::Text)? {
        Line::Help { name, text } => {
            family_name(name)?;
            help_text(text)
        }
        Line::Type { name, .. } => family_name(name).map(|_| ()),
        Line::Sample(sample) => {
            let blanks = line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            Series::read(sample.series, Dialect::Text).map_err(|fault| fault.behind(blanks))?;
            value_of(&sample).map(|_| ())
        }
        _ => Ok(()),
    }
}

// === impl Page ===

impl Page {
    fn line(&mut self, line: &[u8]) -> Result<(), Problem> {
        if self.ended {
            return Err(Problem::of("nothing may follow # EOF"));
        }
        match Line::read(line, Dialect::OpenMetrics)? {
            Line::Blank => Err(Problem::of("a line may not be blank")),
            Line::Comment => Err(Problem::of("only HELP, TYPE, UNIT and EOF may stand behind #")),
            Line::Eof => {
                self.ended = true;
                Ok(())
            }
            Line::Help { name, text } => {
                help_text(text)?;
                self.described(name)?.help()
            }
            Line::Type { name, kind } => self.described(name)?.kind(kind),
            Line::Unit { name, unit } => {
                let unit = std::str::from_utf8(unit).map_err(|_| Problem::of("the unit is no UTF-8"))?;
                self.described(name)?.unit(unit)
            }
            Line::Sample(sample) => {
                let series = Series::read(sample.series, Dialect::OpenMetrics)?;
                let value = value_of(&sample)?;
                if let Some(exemplar) = &sample.exemplar {
                    check_exemplar(exemplar.labels)?;
                }
                let family = self.family(&series.name, |family| family.has_sample(&series.name))?;
                family.sample(&series, value, &sample)
            }
        }
    }

    /// The family that a line of metadata is for.
    fn described(&mut self, name: &[u8]) -> Result<&mut Family, Problem> {
        let name = family_name(name)?;
        let family = self.family(&name, |family| family.name == name)?;
        if family.has_samples() {
            return Err(Problem::of("metadata stand before the samples of their family"));
        }
        Ok(family)
    }

    /// The family that is being read, if it is the one; else a new one of this name.
    fn family(&mut self, name: &str, is_this: impl Fn(&Family) -> bool) -> Result<&mut Family, Problem> {
        if !self.family.as_ref().is_some_and(is_this) {
            self.finish()?;
        }
        Ok(self.family.get_or_insert_with(|| Family::new(name)))
    }

    fn finish(&mut self) -> Result<(), Problem> {
        let Some(family) = self.family.take() else { return Ok(()) };
        let names: Vec<String> = family.names().collect();
        if let Some(name) = names.iter().find(|name| self.taken.contains(*name)) {
            return Err(Problem::of(format!(
                "{name} belongs to two families, or to one that is not in one place"
            )));
        }
        self.taken.extend(names);
        family.finish()
    }

    fn end(&mut self) -> Result<(), Problem> {
        self.finish()?;
        if self.ended { Ok(()) } else { Err(Problem::of("the page does not end with # EOF")) }
    }
}

fn family_name(name: &[u8]) -> Result<Cow<'_, str>, Problem> {
    metric_name(name).map_err(|fault| Problem::of(fault.what))
}

fn help_text(text: &[u8]) -> Result<(), Problem> {
    std::str::from_utf8(text).map(|_| ()).map_err(|_| Problem::of("the help text is no UTF-8"))
}

fn value_of(sample: &Sample<'_>) -> Result<f64, Problem> {
    let value = || String::from_utf8_lossy(sample.value);
    sample.value().ok_or_else(|| Problem::of(format!("the value {:?} is no number", value())))
}

fn check_exemplar(labels: &[u8]) -> Result<(), Problem> {
    let labels = Series::read_labels(labels, Dialect::OpenMetrics)
        .map_err(|fault| Problem::of(format!("in the exemplar's labels: {}", fault.what)))?;
    let characters: usize =
        labels.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
    if characters > EXEMPLAR_CHARACTERS {
        return Err(Problem::of(format!(
            "an exemplar's labels have {characters} characters, at most {EXEMPLAR_CHARACTERS} are allowed"
        )));
    }
    Ok(())
}

// === impl Problem ===

impl Problem {
    fn of(what: impl Into<String>) -> Self {
        Problem { at: None, what: what.into() }
    }

    fn on(self, line: usize) -> PageFault {
        PageFault { line, column: self.at.map(|at| at + 1), what: self.what }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Problem { at: Some(fault.at), what: fault.what.to_owned() }
    }
}

#[cfg(test)]
mod tests;
