//! A line's way, in order:
//!
//! ```text
//! discover -> settings -> container ~~> reader -> pass: split -> join -> record: parse -> encode -> lane -> chunk
//! (what there is)    (how it is handled)  (whose turn)   (a line)  (a record)             (bytes)     (what is sent)
//! ```

pub mod container;
pub mod cursor;
pub mod discover;
pub mod encode;
pub mod events;
pub mod generation;
pub mod join;
pub mod lane;
pub mod layout;
pub mod metrics;
pub mod multiline;
pub mod open;
pub mod parse;
pub mod pass;
pub mod reader;
pub mod record;
pub mod redact;
pub mod rules;
pub mod settings;
pub mod source;
pub mod split;
pub mod start;
pub mod tag;
mod tail;
pub mod watch;
