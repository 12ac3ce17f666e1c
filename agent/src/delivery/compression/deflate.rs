//! Deflate (RFC 1951) for chunks of log records.
//!
//! Records repeat: the metadata is the same for every line of a container, hundreds of bytes at a time, and stands less
//! than a record away. So one look into a table of recent places, for each place in the input, finds nearly all that is
//! to be found, and a match may be of any length: it is compared once, and cut into pieces of 258 bytes only when it is
//! written. The fixed codes of section 3.2.6 need no second pass over the input.

/// How far back a match may lie.
const WINDOW: usize = 32 << 10;
/// The longest match that one code can name.
const MAX_MATCH: usize = 258;
const MIN_MATCH: usize = 3;
/// Bytes that are looked up; shorter matches cost as much as they save.
const LOOKED_UP: usize = 4;
const TABLE_BITS: u32 = 14;
/// Memory of the table.
pub(super) const TABLE_BYTES: u64 = 4 << TABLE_BITS;

/// Room for an input of so many bytes: a literal has at most nine bits.
pub(super) const fn room(input: u64) -> u64 {
    input + input / 8 + 16
}

/// Compresses one input after the other.
pub(super) struct Deflater {
    /// By hash of four bytes, where they were seen last, plus `WINDOW + 1`: so nothing seen yet is out of reach.
    recent: Box<[u32]>,
    /// Room for the output, kept. Only what was ever written takes memory.
    room: Vec<u8>,
}

/// Writes codes of up to 32 bits, the first in the lowest bits.
struct BitWriter<'a> {
    room: &'a mut [u8],
    written: usize,
    pending: u64,
    pending_bits: u32,
}

/// A code with its extra bits.
#[derive(Clone, Copy)]
struct Code {
    bits: u32,
    length: u32,
}

// === impl Deflater ===

impl Deflater {
    pub(super) fn new() -> Self {
        Deflater { recent: vec![0; 1 << TABLE_BITS].into(), room: Vec::new() }
    }

    /// One final block with all of `input`.
    pub(super) fn deflate(&mut self, input: &[u8]) -> &[u8] {
        self.recent.fill(0);
        let most = room(input.len() as u64) as usize;
        if self.room.len() < most {
            self.room = vec![0; most];
        }
        let mut out = BitWriter { room: &mut self.room, written: 0, pending: 0, pending_bits: 0 };
        // BFINAL, then BTYPE 01.
        out.put(Code { bits: 0b011, length: 3 });
        let mut at = 0;
        while let Some(four) = input.get(at..).and_then(|rest| rest.first_chunk::<LOOKED_UP>()) {
            let slot = &mut self.recent[hash(*four)];
            let distance = at + WINDOW + 1 - std::mem::replace(slot, (at + WINDOW + 1) as u32) as usize;
            let length =
                if distance <= WINDOW { common_prefix(&input[at - distance..], &input[at..]) } else { 0 };
            if length < LOOKED_UP {
                out.put(LITERALS[input[at] as usize]);
                at += 1;
            } else {
                out.matched(length, distance);
                at += length;
            }
        }
        for byte in &input[at..] {
            out.put(LITERALS[*byte as usize]);
        }
        out.put(END_OF_BLOCK);
        let length = out.finish();
        &self.room[..length]
    }
}

fn hash(four: [u8; LOOKED_UP]) -> usize {
    // Knuth's multiplicative hash: the upper bits depend on all four bytes.
    (u32::from_le_bytes(four).wrapping_mul(2_654_435_761) >> (u32::BITS - TABLE_BITS)) as usize
}

/// How many bytes two slices have in common at their start.
fn common_prefix(one: &[u8], other: &[u8]) -> usize {
    let (ones, _) = one.as_chunks::<8>();
    let (others, _) = other.as_chunks::<8>();
    let mut same = 0;
    for (one, other) in ones.iter().zip(others) {
        let difference = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
        if difference != 0 {
            return same + difference.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    same + one[same..].iter().zip(&other[same..]).take_while(|(one, other)| one == other).count()
}

// === impl BitWriter ===

impl BitWriter<'_> {
    fn put(&mut self, code: Code) {
        self.pending |= u64::from(code.bits) << self.pending_bits;
        self.pending_bits += code.length;
        if self.pending_bits >= 32 {
            self.room[self.written..self.written + 4].copy_from_slice(&(self.pending as u32).to_le_bytes());
            self.written += 4;
            self.pending >>= 32;
            self.pending_bits -= 32;
        }
    }

    /// A match of any length, in pieces; none of them is shorter than a match may be.
    fn matched(&mut self, mut length: usize, distance: usize) {
        let back = distance_code(distance);
        while length > MAX_MATCH {
            let piece = MAX_MATCH.min(length - MIN_MATCH);
            self.put(LENGTHS[piece]);
            self.put(back);
            length -= piece;
        }
        self.put(LENGTHS[length]);
        self.put(back);
    }

    fn finish(self) -> usize {
        let bytes = self.pending_bits.div_ceil(8) as usize;
        self.room[self.written..self.written + bytes].copy_from_slice(&self.pending.to_le_bytes()[..bytes]);
        self.written + bytes
    }
}

// The fixed codes. Huffman codes stand with their first bit lowest, extra bits as numbers.

static LITERALS: [Code; 256] = {
    let mut codes = [Code { bits: 0, length: 0 }; 256];
    let mut byte = 0;
    while byte < 256 {
        codes[byte] = symbol(byte as u32);
        byte += 1;
    }
    codes
};

static LENGTHS: [Code; MAX_MATCH + 1] = {
    let mut codes = [Code { bits: 0, length: 0 }; MAX_MATCH + 1];
    let mut length = MIN_MATCH;
    while length < MAX_MATCH {
        let above = (length - MIN_MATCH) as u32;
        // Groups of four symbols: each has twice as many lengths as those of the group before.
        let extra = if above < 8 { 0 } else { above.ilog2() - 2 };
        let code = symbol(257 + 4 * extra + (above >> extra));
        codes[length] = with_extra(code, above & ((1 << extra) - 1), extra);
        length += 1;
    }
    codes[MAX_MATCH] = symbol(285);
    codes
};

const END_OF_BLOCK: Code = symbol(256);

fn distance_code(distance: usize) -> Code {
    let above = distance as u32 - 1;
    // Pairs of symbols: each has twice as many distances as those of the pair before.
    let extra = if above < 4 { 0 } else { above.ilog2() - 1 };
    let code = Code { bits: reversed(2 * extra + (above >> extra), 5), length: 5 };
    with_extra(code, above & ((1 << extra) - 1), extra)
}

const fn symbol(symbol: u32) -> Code {
    match symbol {
        0..=143 => Code { bits: reversed(0x30 + symbol, 8), length: 8 },
        144..=255 => Code { bits: reversed(0x190 + symbol - 144, 9), length: 9 },
        256..=279 => Code { bits: reversed(symbol - 256, 7), length: 7 },
        _ => Code { bits: reversed(0xc0 + symbol - 280, 8), length: 8 },
    }
}

const fn with_extra(code: Code, value: u32, bits: u32) -> Code {
    Code { bits: code.bits | value << code.length, length: code.length + bits }
}

const fn reversed(bits: u32, length: u32) -> u32 {
    bits.reverse_bits() >> (32 - length)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn inflated(bytes: &[u8]) -> Vec<u8> {
        let mut back = Vec::new();
        flate2::read::DeflateDecoder::new(bytes).read_to_end(&mut back).unwrap();
        back
    }

    #[test]
    fn matches_of_every_length_and_distance_come_back() {
        let mut deflater = Deflater::new();
        for distance in [4, 5, 17, 300, 5_000, WINDOW - 1, WINDOW, WINDOW + 1] {
            let block: Vec<u8> = (0..distance as u32)
                .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
                .take(distance)
                .collect();
            for length in (4..600).chain([40_000]) {
                let input: Vec<u8> = block.iter().chain(block.iter().cycle().take(length)).copied().collect();
                assert_eq!(inflated(deflater.deflate(&input)), input, "{distance} {length}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_goes_in_comes_back(pieces in prop::collection::vec((0..20usize, prop::collection::vec(any::<u8>(), 0..50)), 0..200)) {
            // Pieces come again, so that there is something to find.
            let input: Vec<u8> = pieces.iter().flat_map(|(index, new)| pieces.get(*index).map_or(new, |(_, old)| old).iter().chain(new)).copied().collect();
            let mut deflater = Deflater::new();
            prop_assert_eq!(inflated(deflater.deflate(&input)), input.clone());
            // Nothing of the input before is left.
            prop_assert_eq!(inflated(deflater.deflate(&input[input.len() / 2..])), input[input.len() / 2..].to_vec());
        }
    }
}
