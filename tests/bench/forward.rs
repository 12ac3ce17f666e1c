//! The Forward side of a receiver: PackedForward of any compression, and Forward mode, in which entries are an array.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use rmp::Marker;
use rmpv::Value;

use crate::tally::{Look, Tally, unpacked};

/// Reads messages until the sender closes.
///
/// # Errors
/// When the connection breaks, or a message is not what it should be.
pub(crate) fn serve(stream: &TcpStream, tally: &Tally) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    let mut entries = Vec::new();
    loop {
        let mut head = [0];
        reader.read_exact(&mut head)?;
        let _tag = rmpv::decode::read_value(&mut reader).map_err(io::Error::other)?;
        let size = read_entries(&mut reader, &mut entries)?;
        let options = rmpv::decode::read_value(&mut reader).map_err(io::Error::other)?;
        if tally.looks() {
            let compression = options["compressed"].as_str().unwrap_or_default();
            look(&unpacked(&entries, compression)?, tally)?;
        }
        tally.add(size.or(options["size"].as_u64()).unwrap_or(0));
        if !options["chunk"].is_nil() {
            let mut answer = Vec::new();
            let ack = Value::Map(vec![(Value::from("ack"), options["chunk"].clone())]);
            rmpv::encode::write_value(&mut answer, &ack).map_err(io::Error::other)?;
            (&*stream).write_all(&answer)?;
        }
    }
}

/// Reads the entries as they are. Only Forward mode says here how many there are.
fn read_entries(reader: &mut impl Read, entries: &mut Vec<u8>) -> io::Result<Option<u64>> {
    entries.clear();
    let marker = rmp::decode::read_marker(reader).map_err(|error| error.0)?;
    let mut length = [0; 4];
    let width = match marker {
        Marker::FixArray(_) => 0,
        Marker::Bin8 => 1,
        Marker::Bin16 | Marker::Array16 => 2,
        Marker::Bin32 | Marker::Array32 => 4,
        other => return Err(io::Error::other(format!("entries are {other:?}"))),
    };
    reader.read_exact(&mut length[4 - width..])?;
    let length = u32::from_be_bytes(length);
    let count = match marker {
        Marker::FixArray(count) => u32::from(count),
        Marker::Array16 | Marker::Array32 => length,
        _ => {
            entries.resize(length as usize, 0);
            reader.read_exact(entries)?;
            return Ok(None);
        }
    };
    let mut copy = Copying { reader, copy: entries };
    for _ in 0..count {
        rmpv::decode::read_value(&mut copy).map_err(io::Error::other)?;
    }
    Ok(Some(u64::from(count)))
}

/// A reader that keeps what was read.
struct Copying<'a, R> {
    reader: &'a mut R,
    copy: &'a mut Vec<u8>,
}

// === impl Copying ===

impl<R: Read> Read for Copying<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.copy.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

fn look(mut entries: &[u8], tally: &Tally) -> io::Result<()> {
    if tally.look == Look::Numbers {
        tally.scan(entries);
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let mut ages = Vec::new();
    while !entries.is_empty() {
        let entry = rmpv::decode::read_value(&mut entries).map_err(io::Error::other)?;
        match tally.look {
            Look::Verify => verify(&entry[1], tally)?,
            _ => ages.extend(time(&entry[0]).map(|time| now - time)),
        }
    }
    tally.aged(&ages);
    Ok(())
}

/// Seconds since the epoch: an EventTime, alone or beside the entry's metadata.
fn time(time: &Value) -> Option<f64> {
    let time = if time.is_array() { &time[0] } else { time };
    let (0, bytes) = time.as_ext()? else { return None };
    let (seconds, nanos) = bytes.split_first_chunk::<4>()?;
    let nanos = u32::from_be_bytes(nanos.try_into().ok()?);
    Some(f64::from(u32::from_be_bytes(*seconds)) + f64::from(nanos) / 1e9)
}

fn verify(record: &Value, tally: &Tally) -> io::Result<()> {
    let text = record["log"].as_str().or(record["message"].as_str()).or(record["fields"]["message"].as_str());
    let sequence = text.and_then(|text| text.split_once("seq=")?.1.split([' ', '"']).next()?.split_once(':'));
    let Some((pod, number)) = sequence else {
        tally.stray();
        return Ok(());
    };
    let well_named = record["kubernetes"]["pod_name"].as_str() == Some(pod)
        && record["kubernetes"]["labels"]["pod-template-hash"].as_str().is_some();
    tally.number(pod, number.parse().map_err(io::Error::other)?, well_named);
    Ok(())
}
