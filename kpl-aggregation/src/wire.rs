//! The bytes: framing, and the protobuf message inside it.
//!
//! The message is walked, not decoded into structs: a generated decoder fails on a known field with an
//! unexpected wire type, while the consumers in the field skip it as unknown, and a walk needs neither an
//! allocation per record nor the texts as owned strings. What is kept of a field is where it lies.

use std::ops::Range;

use bytes::{BufMut, Bytes};
use bytestring::ByteString;
use md5::{Digest, Md5};
use prost::encoding::{DecodeContext, WireType, decode_varint, encode_varint, skip_field};

use crate::error::{Malformed, PlainReason};

/// The four bytes every aggregated record begins with.
pub(crate) const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

/// Length of the MD5 digest every aggregated record ends with, in bytes.
pub(crate) const DIGEST_LEN: usize = 16;

/// Bytes that the frame adds to the protobuf message.
pub(crate) const FRAMING_LEN: usize = MAGIC.len() + DIGEST_LEN;

/// Keys of the known fields, as they are written: field number and wire type.
pub(crate) mod key {
    const VARINT: u64 = 0;
    const DELIMITED: u64 = 2;

    pub(crate) const PARTITION_KEYS: u64 = 1 << 3 | DELIMITED;
    pub(crate) const EXPLICIT_HASH_KEYS: u64 = 2 << 3 | DELIMITED;
    pub(crate) const RECORDS: u64 = 3 << 3 | DELIMITED;
    pub(crate) const PARTITION_KEY_INDEX: u64 = 1 << 3 | VARINT;
    pub(crate) const EXPLICIT_HASH_KEY_INDEX: u64 = 2 << 3 | VARINT;
    pub(crate) const DATA: u64 = 3 << 3 | DELIMITED;
    pub(crate) const TAGS: u64 = 4 << 3 | DELIMITED;
    pub(crate) const TAG_KEY: u64 = 1 << 3 | DELIMITED;
}

/// Returns the MD5 digest of the bytes.
pub(crate) fn digest(bytes: &[u8]) -> [u8; DIGEST_LEN] {
    Md5::digest(bytes).into()
}

/// Where a field's bytes lie, counted from the first byte of the message.
///
/// Of 32 bits, like all that is kept of a record: the less memory an aggregate of tiny records touches besides its
/// own bytes, the faster it is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// Shares the bytes of `body` that this span covers.
    #[inline]
    pub(crate) fn share(self, body: &Bytes) -> Bytes {
        body.slice(self.range())
    }

    /// Borrows the bytes of `body` that this span covers.
    pub(crate) fn of(self, body: &[u8]) -> &[u8] {
        &body[self.range()]
    }

    /// Returns the number of bytes covered.
    pub(crate) fn len(self) -> usize {
        self.len as usize
    }

    #[inline]
    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

/// An index into a key table, as far as a table can reach; greater ones are kept apart from all that a table has.
///
/// A message of less than 2^32 bytes has less than 2^31 entries in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyIndex(u32);

impl KeyIndex {
    const ABSENT: Self = Self(u32::MAX);
    const BEYOND: Self = Self(u32::MAX - 1);

    #[inline]
    fn new(index: u64) -> Self {
        u32::try_from(index).map_or(Self::BEYOND, |index| Self(index.min(Self::BEYOND.0)))
    }

    /// Tells whether there was an index at all.
    #[inline]
    pub(crate) fn is_present(self) -> bool {
        self != Self::ABSENT
    }

    /// Returns the place in a table; no table is long enough for an index that is absent or beyond.
    #[inline]
    pub(crate) fn place(self) -> usize {
        self.0 as usize
    }
}

/// One `Record` message; the indexes are not yet checked against the tables.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) sub_sequence_number: u32,
    pub(crate) partition_key: KeyIndex,
    pub(crate) explicit_hash_key: KeyIndex,
    pub(crate) data: Span,
}

/// One `AggregatedRecord` message as places in its bytes.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    pub(crate) partition_keys: Vec<Span>,
    pub(crate) explicit_hash_keys: Vec<Span>,
    pub(crate) entries: Vec<Entry>,
}

/// Takes the frame off, checks it, and walks the message in it.
///
/// A frame around nothing (20 bytes in all) is no aggregate, as in the Java consumer.
pub(crate) fn read(data: &Bytes) -> Result<(Bytes, Layout), PlainReason> {
    let len = data.len();
    if !data.starts_with(&MAGIC) {
        return Err(PlainReason::NoMagic);
    }
    check_len(len)?;
    let body = data.slice(MAGIC.len()..len - DIGEST_LEN);
    let mut digest = RunningDigest::default();
    let layout = parse(&body, &mut digest);
    if digest.finish(&body) != data[len - DIGEST_LEN..] {
        return Err(PlainReason::DigestMismatch);
    }
    Ok((body, layout.map_err(PlainReason::Malformed)?))
}

fn check_len(len: usize) -> Result<(), PlainReason> {
    if len <= FRAMING_LEN {
        return Err(PlainReason::TooShort { len });
    }
    match u32::try_from(len) {
        Ok(_) => Ok(()),
        Err(_) => Err(PlainReason::TooLong { len }),
    }
}

/// The digest of a message, computed while the message is walked.
///
/// Each step of MD5 waits for the one before, which leaves most of a processor idle. The walk is done in that time:
/// one after the other they would take longer.
#[derive(Default)]
struct RunningDigest {
    md5: Md5,
    done: usize,
}

impl RunningDigest {
    const BLOCK: usize = 64;

    /// Takes in the whole blocks among the first `len` bytes of the message.
    #[inline]
    fn follow(&mut self, message: &[u8], len: usize) {
        let end = len - len % Self::BLOCK;
        if end > self.done {
            self.md5.update(&message[self.done..end]);
            self.done = end;
        }
    }

    /// Takes in the rest of the message.
    fn finish(mut self, message: &[u8]) -> [u8; DIGEST_LEN] {
        self.md5.update(&message[self.done..]);
        self.md5.finalize().into()
    }
}

/// Writes the frame around what `message` writes, into exactly one allocation of `message_len` + 20 bytes.
pub(crate) fn frame(message_len: usize, message: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut out = Vec::with_capacity(FRAMING_LEN + message_len);
    out.put_slice(&MAGIC);
    message(&mut out);
    let tail = digest(&out[MAGIC.len()..]);
    out.put_slice(&tail);
    Bytes::from(out)
}

/// Writes the key and length of a length-delimited field.
pub(crate) fn put_delimiter(key: u64, len: usize, out: &mut Vec<u8>) {
    encode_varint(key, out);
    encode_varint(len as u64, out);
}

/// Writes a varint field.
pub(crate) fn put_varint(key: u64, value: u64, out: &mut Vec<u8>) {
    encode_varint(key, out);
    encode_varint(value, out);
}

/// Walks an `AggregatedRecord` message.
///
/// Unknown fields, and known ones with another wire type, are skipped; of a repeated scalar the last counts;
/// the order of the fields is free; required fields are required.
fn parse(body: &[u8], digest: &mut RunningDigest) -> Result<Layout, Malformed> {
    let mut layout = Layout::default();
    let mut rest = body;
    while !rest.is_empty() {
        digest.follow(body, body.len() - rest.len());
        match varint(&mut rest)? {
            key::PARTITION_KEYS => layout.partition_keys.push(delimited(body.len(), &mut rest)?.1),
            key::EXPLICIT_HASH_KEYS => layout.explicit_hash_keys.push(delimited(body.len(), &mut rest)?.1),
            key::RECORDS => {
                let (message, span) = delimited(body.len(), &mut rest)?;
                let record = parse_record(message)?;
                if layout.entries.is_empty() {
                    // Records tend to be of a size, and each takes at least its own length.
                    layout.entries.reserve(1 + rest.len() / (message.len() + 2));
                }
                layout.entries.push(Entry {
                    sub_sequence_number: layout.entries.len() as u32,
                    partition_key: KeyIndex::new(record.partition_key),
                    explicit_hash_key: record.explicit_hash_key.map_or(KeyIndex::ABSENT, KeyIndex::new),
                    data: Span { start: span.start + record.data.start, len: record.data.len },
                });
            }
            unknown => skip(unknown, &mut rest)?,
        }
    }
    Ok(layout)
}

/// One `Record` message as written.
#[derive(Debug)]
pub(crate) struct RawRecord {
    pub(crate) partition_key: u64,
    pub(crate) explicit_hash_key: Option<u64>,
    data: Span,
}

/// Reads one record of a message that was read before, to tell the indexes it was written with.
pub(crate) fn raw_record(body: &[u8], sub_sequence_number: u32) -> Result<RawRecord, Malformed> {
    let mut rest = body;
    let mut before = sub_sequence_number;
    loop {
        match varint(&mut rest)? {
            key::RECORDS => {
                let (message, _) = delimited(body.len(), &mut rest)?;
                match before.checked_sub(1) {
                    Some(left) => before = left,
                    None => return parse_record(message),
                }
            }
            other => skip(other, &mut rest)?,
        }
    }
}

#[inline]
fn parse_record(message: &[u8]) -> Result<RawRecord, Malformed> {
    let mut partition_key = None;
    let mut explicit_hash_key = None;
    let mut data = None;
    let mut rest = message;
    while !rest.is_empty() {
        match varint(&mut rest)? {
            key::PARTITION_KEY_INDEX => partition_key = Some(varint(&mut rest)?),
            key::EXPLICIT_HASH_KEY_INDEX => explicit_hash_key = Some(varint(&mut rest)?),
            key::DATA => data = Some(delimited(message.len(), &mut rest)?.1),
            key::TAGS => check_tag(delimited(message.len(), &mut rest)?.0)?,
            unknown => skip(unknown, &mut rest)?,
        }
    }
    Ok(RawRecord {
        partition_key: partition_key.ok_or(Malformed::NoPartitionKeyIndex)?,
        explicit_hash_key,
        data: data.ok_or(Malformed::NoData)?,
    })
}

/// Checks that a `Tag` is sound; what it says is used by no consumer.
fn check_tag(mut rest: &[u8]) -> Result<(), Malformed> {
    let mut has_key = false;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        has_key |= key == key::TAG_KEY;
        skip(key, &mut rest)?;
    }
    if has_key { Ok(()) } else { Err(Malformed::NoTagKey) }
}

/// Takes a number off `rest`. Nearly all are of one byte, so that case alone is inlined.
#[inline]
fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    match *rest {
        [byte @ 0..0x80, tail @ ..] => {
            *rest = tail;
            Ok(u64::from(*byte))
        }
        _ => decode_varint(rest).map_err(|_| Malformed::Protobuf),
    }
}

/// Takes the content of a field off `rest` by what its key says.
#[cold]
fn skip(key: u64, rest: &mut &[u8]) -> Result<(), Malformed> {
    let wire_type = WireType::try_from(key & 0b111).map_err(|_| Malformed::Protobuf)?;
    match u32::try_from(key).map(|key| key >> 3) {
        Ok(tag @ 1..) => {
            skip_field(wire_type, tag, rest, DecodeContext::default()).map_err(|_| Malformed::Protobuf)
        }
        _ => Err(Malformed::Protobuf),
    }
}

/// Takes a length and that many bytes off `rest`, which is the tail of a message of `whole` bytes, less than 2^32.
#[inline]
fn delimited<'a>(whole: usize, rest: &mut &'a [u8]) -> Result<(&'a [u8], Span), Malformed> {
    let len = usize::try_from(varint(rest)?).map_err(|_| Malformed::Protobuf)?;
    let start = (whole - rest.len()) as u32;
    let (field, tail) = rest.split_at_checked(len).ok_or(Malformed::Protobuf)?;
    *rest = tail;
    Ok((field, Span { start, len: len as u32 }))
}

/// Shares the bytes as text if they are UTF-8, else returns their repaired copy.
#[inline]
pub(crate) fn text(body: &Bytes, span: Span) -> ByteString {
    match ByteString::try_from(span.share(body)) {
        Ok(text) => text,
        Err(_) => repaired(span.of(body)).into(),
    }
}

/// Replaces what is not UTF-8 by U+FFFD, with exactly as many of them as Java's decoder writes.
///
/// Java counts an encoded surrogate as one fault where Rust's own lossy conversion counts each of its bytes.
/// The number matters: the text is hashed to tell the shard.
pub(crate) fn repaired(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 8);
    let mut rest = bytes;
    while let Some(chunk) = rest.utf8_chunks().next() {
        out.push_str(chunk.valid());
        let bad = &rest[chunk.valid().len()..];
        let skipped = match bad {
            [0xED, 0xA0..=0xBF, 0x80..=0xBF, ..] => 3,
            [0xED, 0xA0..=0xBF, ..] => 2,
            _ => chunk.invalid().len(),
        };
        if skipped > 0 {
            out.push(char::REPLACEMENT_CHARACTER);
        }
        rest = &bad[skipped..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{check_len, repaired};
    use crate::PlainReason;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_frame_has_content_and_its_length_fits_in_32_bits() {
        assert_eq!(check_len(20), Err(PlainReason::TooShort { len: 20 }));
        assert_eq!(check_len(21), Ok(()));
        assert_eq!(check_len(u32::MAX as usize), Ok(()));
        assert_eq!(check_len(1 << 32), Err(PlainReason::TooLong { len: 1 << 32 }));
    }

    /// The expected column was printed by `new String(bytes, UTF_8)` of OpenJDK.
    #[test]
    fn invalid_text_is_replaced_as_java_does() {
        let cases: [(&[u8], &str); 14] = [
            (&[], ""),
            (b"plain", "plain"),
            (&[0xED, 0xA0, 0x80], "\u{FFFD}"),
            (&[0xED, 0xA0], "\u{FFFD}"),
            (&[0xED, 0xA0, 0x41], "\u{FFFD}A"),
            (&[0xED, 0xBF, 0xBF, 0xED, 0xA0, 0x80], "\u{FFFD}\u{FFFD}"),
            (&[0xED], "\u{FFFD}"),
            (&[0xE2, 0x82], "\u{FFFD}"),
            (&[0xF0, 0x9F, 0x98], "\u{FFFD}"),
            (&[0xC0, 0x80], "\u{FFFD}\u{FFFD}"),
            (&[0xE0, 0x80, 0x80], "\u{FFFD}\u{FFFD}\u{FFFD}"),
            (&[0xF4, 0x90, 0x80, 0x80], "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}"),
            (&[0xF8, 0x88, 0x80, 0x80, 0x80], "\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}"),
            (&[0x61, 0xFF, 0xFE, 0x62], "a\u{FFFD}\u{FFFD}b"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(repaired(bytes), expected, "{bytes:02X?}");
        }
    }
}
