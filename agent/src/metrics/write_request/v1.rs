//! Version 1.0: every series brings its labels. It has no place for the kind of a series, nor for when a counter began, and
//! its receivers need not know exemplars.
//!
//! Source: the specification of remote write 1.0, and `prompb/remote.proto` of Prometheus.

use super::Sample;
use crate::delivery::protobuf::{self, length_delimited, varint_len};
use crate::metrics::symbols::SymbolTable;

/// `WriteRequest.timeseries`.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
}

// === impl Message ===

impl Message {
    pub(super) fn add(&mut self, sample: &Sample<'_>, table: &SymbolTable) {
        let labels = || sample.labels.chunks_exact(2).map(|pair| (table.text(pair[0]), table.text(pair[1])));
        let labels_len: usize = labels().map(|(name, value)| protobuf::label_len(name, value)).sum();
        let sample_len = protobuf::sample_len(sample.timestamp, None);
        length_delimited(&mut self.bytes, 1, labels_len + 1 + varint_len(sample_len as u64) + sample_len);
        labels().for_each(|(name, value)| protobuf::label(&mut self.bytes, name, value));
        protobuf::sample(&mut self.bytes, sample.value, sample.timestamp, None);
    }
}
