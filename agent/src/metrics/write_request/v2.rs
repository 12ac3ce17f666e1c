//! Version 2.0: texts stand in a table, each once; series are lists of places in it.
//!
//! Source: the specification of remote write 2.0, and `prompb/io/prometheus/write/v2/types.proto` of Prometheus.

use std::hash::BuildHasher;
use std::ops::Range;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::Sample;
use crate::delivery::protobuf::{self, double, length_delimited, varint, varint_len};
use crate::metrics::exposition::Kind;
use crate::metrics::series::{Exemplar, Metadata};
use crate::metrics::symbols::{Symbol, SymbolTable};

/// `Request`.
#[derive(Debug)]
pub(super) struct Message {
    /// `symbols`, encoded; at the end `timeseries` come behind.
    symbols: Vec<u8>,
    timeseries: Vec<u8>,
    /// How many symbols there are.
    count: u32,
    /// Where in `symbols` a symbol of the node stands.
    places: Vec<Place>,
    /// [`SymbolTable::reassigned`], when they were put down.
    reassigned: u32,
    /// Every text of this message: where its bytes are in `symbols`, and which it is. One may have two symbols of the node, one
    /// after the other, if nobody held it for a while; exemplars have texts without any.
    texts: HashTable<(Range<usize>, u32)>,
    hasher: RandomState,
    /// Tells places of this message from those of an earlier one.
    number: u32,
    /// Parts of one time series, while they are made: the places of its labels, its exemplar, its metadata.
    refs: Vec<u8>,
    exemplar: Vec<u8>,
    metadata: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    message: u32,
    index: u32,
}

// === impl Message ===

impl Default for Message {
    fn default() -> Self {
        let mut message = Message {
            symbols: Vec::new(),
            timeseries: Vec::new(),
            count: 0,
            places: Vec::new(),
            texts: HashTable::new(),
            hasher: RandomState::default(),
            reassigned: 0,
            number: 0,
            refs: Vec::new(),
            exemplar: Vec::new(),
            metadata: Vec::new(),
        };
        message.clear();
        message
    }
}

impl Message {
    pub(super) fn add(&mut self, sample: &Sample<'_>, table: &SymbolTable) {
        if self.reassigned != table.reassigned() {
            self.reassigned = table.reassigned();
            self.forget_places();
        }
        self.refs.clear();
        for symbol in sample.labels {
            let place = self.place(*symbol, table);
            varint(&mut self.refs, place.into());
        }
        self.exemplar.clear();
        if let Some(exemplar) = sample.exemplar {
            self.exemplar(exemplar, sample.timestamp);
        }
        self.metadata(sample.metadata, table);
        let start = sample.start.filter(|start| *start <= sample.timestamp);
        let message = |length: usize| 1 + varint_len(length as u64) + length;
        let optional = |part: &Vec<u8>| if part.is_empty() { 0 } else { message(part.len()) };
        let value = match sample.histogram {
            Some(histogram) => message(histogram.len() + protobuf::times_len(sample.timestamp, start)),
            None => message(protobuf::sample_len(sample.timestamp, start)),
        };
        let length = message(self.refs.len()) + value + optional(&self.exemplar) + optional(&self.metadata);
        let out = &mut self.timeseries;
        length_delimited(out, 5, length);
        length_delimited(out, 1, self.refs.len());
        out.extend_from_slice(&self.refs);
        match sample.histogram {
            Some(histogram) => protobuf::histogram(out, histogram, sample.timestamp, start),
            None => protobuf::sample(out, sample.value, sample.timestamp, start),
        }
        for (field, part) in [(4, &self.exemplar), (5, &self.metadata)] {
            if !part.is_empty() {
                length_delimited(out, field, part.len());
                out.extend_from_slice(part);
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.symbols.len() + self.timeseries.len()
    }

    pub(super) fn finish(&mut self) -> &[u8] {
        self.symbols.append(&mut self.timeseries);
        &self.symbols
    }

    pub(super) fn clear(&mut self) {
        self.forget_places();
        self.symbols.clear();
        self.timeseries.clear();
        self.texts.clear();
        self.count = 0;
        // The first one is the empty text.
        self.place_of_text("");
    }

    fn forget_places(&mut self) {
        // 0 is that of places which were never put down.
        self.number = self.number.wrapping_add(1).max(1);
    }

    fn place(&mut self, symbol: Symbol, table: &SymbolTable) -> u32 {
        match self.places.get(symbol.index()) {
            Some(known) if known.message == self.number => known.index,
            _ => self.find_place(symbol, table),
        }
    }

    fn find_place(&mut self, symbol: Symbol, table: &SymbolTable) -> u32 {
        if self.places.len() < table.places() {
            self.places.resize(table.places(), Place::default());
        }
        let index = self.place_of_text(table.text(symbol));
        self.places[symbol.index()] = Place { message: self.number, index };
        index
    }

    fn place_of_text(&mut self, text: &str) -> u32 {
        let (symbols, hasher) = (&self.symbols, &self.hasher);
        let hash = hasher.hash_one(text.as_bytes());
        let is_it = |known: &(Range<usize>, u32)| symbols[known.0.clone()] == *text.as_bytes();
        if let Some((_, index)) = self.texts.find(hash, is_it) {
            return *index;
        }
        length_delimited(&mut self.symbols, 4, text.len());
        let start = self.symbols.len();
        self.symbols.extend_from_slice(text.as_bytes());
        let (bytes, index) = (start..self.symbols.len(), self.count);
        let (symbols, hasher) = (&self.symbols, &self.hasher);
        self.texts.insert_unique(hash, (bytes, index), |known| hasher.hash_one(&symbols[known.0.clone()]));
        self.count += 1;
        index
    }

    fn exemplar(&mut self, exemplar: &Exemplar, scraped: i64) {
        let mut refs = Vec::new();
        for text in exemplar.labels.iter().flat_map(|(name, value)| [name, value]) {
            varint(&mut refs, self.place_of_text(text).into());
        }
        let out = &mut self.exemplar;
        length_delimited(out, 1, refs.len());
        out.extend_from_slice(&refs);
        double(out, 2, exemplar.value);
        protobuf::number(out, 3, exemplar.timestamp.unwrap_or(scraped).cast_unsigned());
    }

    fn metadata(&mut self, metadata: Metadata, table: &SymbolTable) {
        let kind = metadata.kind.map_or(0, metric_type);
        let [help, unit] = [metadata.help, metadata.unit].map(|symbol| self.place(symbol, table));
        self.metadata.clear();
        for (field, number) in [(1, kind), (3, help), (4, unit)] {
            if number > 0 {
                protobuf::number(&mut self.metadata, field, number.into());
            }
        }
    }
}

/// `Metadata.MetricType`.
fn metric_type(kind: Kind) -> u32 {
    match kind {
        Kind::Unknown => 0,
        Kind::Counter => 1,
        Kind::Gauge => 2,
        Kind::Histogram => 3,
        Kind::GaugeHistogram => 4,
        Kind::Summary => 5,
        Kind::Info => 6,
        Kind::StateSet => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::protobuf::{Field, fields};
    use crate::metrics::symbols::Symbols;

    /// The symbols of a message, and its series, each as a list of their fields.
    fn read(message: &mut Message) -> (Vec<String>, Vec<Vec<u8>>) {
        let (mut symbols, mut series) = (Vec::new(), Vec::new());
        for field in fields(message.finish()) {
            match field.unwrap() {
                (4, Field::Bytes(text)) => symbols.push(String::from_utf8(text.to_vec()).unwrap()),
                (5, Field::Bytes(bytes)) => series.push(bytes.to_vec()),
                other => panic!("{other:?}"),
            }
        }
        (symbols, series)
    }

    fn plain(labels: &[Symbol]) -> Sample<'_> {
        Sample {
            labels,
            metadata: Metadata::default(),
            value: 1.0,
            timestamp: 2,
            start: None,
            exemplar: None,
            histogram: None,
        }
    }

    #[test]
    fn every_text_stands_there_once_whoever_brings_it() {
        let symbols = Symbols::default();
        let mut table = symbols.lock();
        let labels = ["__name__", "a", "x", "1"].map(|text| table.hold(text));
        let exemplar = Exemplar {
            labels: vec![("x".to_owned(), "trace".to_owned()), ("later".to_owned(), "trace".to_owned())],
            value: 0.5,
            timestamp: None,
        };
        let mut message = Message::default();
        for _ in 0..2 {
            message.add(&Sample { exemplar: Some(&exemplar), ..plain(&labels) }, &table);
        }
        let later = ["__name__", "later"].map(|text| table.hold(text));
        message.add(&plain(&later), &table);
        let (texts, series) = read(&mut message);
        assert_eq!(texts, ["", "__name__", "a", "x", "1", "trace", "later"]);
        assert_eq!(series.len(), 3);
        assert_eq!(series[0][..6], [0x0a, 4, 1, 2, 3, 4]);
        assert_eq!(series[2][..4], [0x0a, 2, 1, 6]);
    }

    #[test]
    fn a_symbol_that_has_become_another_text_is_not_mistaken_for_the_first() {
        let symbols = Symbols::default();
        let mut table = symbols.lock();
        let first = [Symbol::NAME, table.hold("first")];
        let mut message = Message::default();
        message.add(&plain(&first), &table);
        table.release(first[1]);
        let second = [Symbol::NAME, table.hold("second")];
        assert_eq!(first, second);
        message.add(&plain(&second), &table);
        assert_eq!(read(&mut message).0, ["", "__name__", "first", "second"]);
        message.clear();
        message.add(&plain(&second), &table);
        table.release(second[1]);
        table.hold("third");
        let again = [Symbol::NAME, table.hold("second")];
        message.add(&plain(&again), &table);
        assert_eq!(
            read(&mut message).0,
            ["", "__name__", "second"],
            "once, and nothing of the message before"
        );
    }

    #[test]
    fn a_native_histogram_stands_for_its_value() {
        let symbols = Symbols::default();
        let mut table = symbols.lock();
        let labels = [Symbol::NAME, table.hold("h")];
        let mut message = Message::default();
        message.add(&Sample { histogram: Some(&[1 << 3, 5]), start: Some(1), ..plain(&labels) }, &table);
        let series = &read(&mut message).1[0];
        let fields: Vec<_> = fields(series).map(Result::unwrap).collect();
        let histogram = [1 << 3, 5, 15 << 3, 2, 0x88, 0x01, 1];
        assert_eq!(fields, [(1, Field::Bytes(&[1, 2])), (3, Field::Bytes(&histogram))]);
    }

    #[test]
    fn a_start_behind_its_sample_is_left_out() {
        let symbols = Symbols::default();
        let mut table = symbols.lock();
        let labels = [Symbol::NAME, table.hold("a")];
        for (start, said) in [(1, true), (2, true), (3, false)] {
            let mut message = Message::default();
            message.add(&Sample { start: Some(start), ..plain(&labels) }, &table);
            let series = &read(&mut message).1[0];
            let fields: Vec<_> = fields(series).map(Result::unwrap).collect();
            let Field::Bytes(sample) = fields[1].1 else { panic!("{fields:?}") };
            let has_start = crate::delivery::protobuf::fields(sample).any(|field| field.unwrap().0 == 3);
            assert_eq!(has_start, said, "{start}");
        }
    }
}
