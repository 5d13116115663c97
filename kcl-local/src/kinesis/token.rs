//! Opaque tokens: shard iterators and paging tokens.
//!
//! A token is the hexadecimal text of its fields and a checksum, so that junk is told from a token
//! that is merely old.

/// What a token stands for; tokens of one kind are never taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Iterator = 1,
    Shards = 2,
    Streams = 3,
    Consumers = 4,
}

/// Renders a token.
pub(crate) fn seal(kind: Kind, fields: &[u64], text: &str) -> String {
    let mut bytes = Vec::with_capacity(6 + fields.len() * 8 + text.len());
    bytes.push(kind as u8);
    bytes.push(fields.len() as u8);
    for field in fields {
        bytes.extend_from_slice(&field.to_be_bytes());
    }
    bytes.extend_from_slice(text.as_bytes());
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut token = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        token.push(char::from(DIGITS[usize::from(byte >> 4)]));
        token.push(char::from(DIGITS[usize::from(byte & 0xf)]));
    }
    token
}

/// Reads the fields of a token, or `None` if it is not a token of this kind.
pub(crate) fn open<const N: usize>(kind: Kind, token: &str) -> Option<([u64; N], String)> {
    let (pairs, []) = token.as_bytes().as_chunks::<2>() else { return None };
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
    let (body, sum) = bytes.split_last_chunk::<4>()?;
    if checksum(body) != u32::from_be_bytes(*sum) {
        return None;
    }
    let ([tag, count], rest) = body.split_first_chunk::<2>()?;
    if *tag != kind as u8 || usize::from(*count) != N || rest.len() < N * 8 {
        return None;
    }
    let (head, text) = rest.split_at(N * 8);
    let mut fields = [0; N];
    for (field, bytes) in fields.iter_mut().zip(head.as_chunks::<8>().0) {
        *field = u64::from_be_bytes(*bytes);
    }
    Some((fields, str::from_utf8(text).ok()?.to_owned()))
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

/// FNV-1a: cheap, and enough to catch a damaged token.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::{Kind, open, seal};

    #[test]
    fn a_token_gives_back_its_fields() {
        let token = seal(Kind::Streams, &[1, u64::MAX], "orders");
        assert_eq!(open::<2>(Kind::Streams, &token), Some(([1, u64::MAX], "orders".to_owned())));
    }

    #[test]
    fn junk_and_damaged_and_foreign_tokens_are_refused() {
        let token = seal(Kind::Iterator, &[1, 2], "");
        for junk in ["", "a", "zz", "é", "AAAA", &token[..token.len() - 2], &token.replace('2', "3")] {
            assert_eq!(open::<2>(Kind::Iterator, junk), None, "{junk}");
        }
        assert_eq!(open::<2>(Kind::Shards, &token), None);
        assert_eq!(open::<1>(Kind::Iterator, &token), None);
    }
}
