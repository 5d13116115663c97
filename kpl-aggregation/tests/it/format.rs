//! What is an aggregate and what is not, case by case.

use bytes::Bytes;
use kpl_aggregation::{
    DamagePolicy, Deaggregator, HashKeyRange, Malformed, OutOfRangePolicy, PlainReason, RecordFault,
    UserRecord, deaggregate, partition_key_hash,
};

use crate::support::{MAGIC, Message, aggregate, framed, message, parts, plain, shares, varint};

fn records(data: &Bytes) -> Vec<UserRecord> {
    aggregate(Deaggregator::new().deaggregate(data)).collect()
}

fn reason(data: &Bytes) -> PlainReason {
    plain(Deaggregator::new().deaggregate(data))
}

fn sound() -> Message {
    message().key("a").key("b").record(0, None, "r0").record(1, None, "r1")
}

#[test]
fn records_share_the_buffer_of_the_aggregate() {
    let data = message().key("ключ").hash_key("7").record(0, Some(0), vec![9; 5000]).framed();
    let records = records(&data);
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(parts(record), (0, "ключ", Some("7"), &vec![9; 5000][..]));
    assert!(shares(&data, &record.data));
    assert!(shares(&data, record.partition_key.as_bytes()));
    assert!(shares(&data, record.explicit_hash_key.as_ref().unwrap().as_bytes()));
}

#[test]
fn ordinary_bytes_are_plain_and_not_damaged() {
    for data in ["", "h", "hello", "a text of more than twenty bytes, as most are"] {
        let reason = reason(&Bytes::from(data));
        assert_eq!(reason, PlainReason::NoMagic);
        assert!(!reason.is_damaged());
    }
    assert_eq!(reason(&Bytes::copy_from_slice(&MAGIC[..3])), PlainReason::NoMagic);
}

#[test]
fn a_frame_needs_more_than_magic_and_digest() {
    let data = framed(b"");
    for len in 4..=20 {
        assert_eq!(reason(&data.slice(..len)), PlainReason::TooShort { len });
    }
    assert!(PlainReason::TooShort { len: 4 }.is_damaged());
    assert_eq!(records(&framed(&[0x78, 0x07])).len(), 0, "21 bytes and more can be an aggregate");
}

#[test]
fn every_single_bit_error_and_every_cut_makes_it_plain() {
    let data = sound().framed();
    assert_eq!(records(&data).len(), 2);
    for bit in 0..data.len() * 8 {
        let mut copy = data.to_vec();
        copy[bit / 8] ^= 1 << (bit % 8);
        let expected = if bit < 32 { PlainReason::NoMagic } else { PlainReason::DigestMismatch };
        assert_eq!(reason(&copy.into()), expected, "bit {bit}");
    }
    for len in 21..data.len() {
        assert_eq!(reason(&data.slice(..len)), PlainReason::DigestMismatch, "{len}");
    }
    assert_eq!(reason(&[&data[..], b"x"].concat().into()), PlainReason::DigestMismatch);
}

#[test]
fn what_is_not_protobuf_is_plain_whatever_its_digest() {
    let cases: [(&str, Vec<u8>); 10] = [
        ("no protobuf", vec![0xFF; 4]),
        ("field number zero", sound().raw(&[0x00, 0x37]).0),
        ("stray end of group", sound().raw(&[0x7C]).0),
        ("group without end", sound().raw(&[0x7B, 0x08, 0x01]).0),
        ("group ended by another's end", sound().raw(&[0x7B, 0x74]).0),
        ("wire type 6", sound().raw(&[0x7E]).0),
        ("field cut off", sound().raw(&[0x0A, 0x05, b'x']).0),
        ("varint of eleven bytes", sound().raw(&[&[0x78][..], &[0x80; 10], &[0x00]].concat()).0),
        ("field key beyond 32 bits", sound().raw(&varint(1 << 35 | 0x78)).raw(&[0]).0),
        ("record that runs over its end", sound().bytes(3, [0x08, 0x00, 0x1A, 0x05, b'x']).0),
    ];
    for (name, body) in cases {
        let reason = reason(&framed(&body));
        assert_eq!(reason, PlainReason::Malformed(Malformed::Protobuf), "{name}");
        assert!(reason.is_damaged());
    }
}

#[test]
fn required_fields_are_required() {
    let without = |record: Message| reason(&sound().bytes(3, record.0).framed());
    assert_eq!(without(message().number(1, 0)), PlainReason::Malformed(Malformed::NoData));
    assert_eq!(without(message().bytes(3, "d")), PlainReason::Malformed(Malformed::NoPartitionKeyIndex));
    let tag = message().bytes(2, "value");
    let tagged = message().number(1, 0).bytes(3, "d").bytes(4, tag.0);
    assert_eq!(without(tagged), PlainReason::Malformed(Malformed::NoTagKey));
    let misplaced = message().bytes(1, "0").bytes(3, "d");
    assert_eq!(
        without(misplaced),
        PlainReason::Malformed(Malformed::NoPartitionKeyIndex),
        "another wire type"
    );
    let misplaced = message().number(1, 0).number(3, 5);
    assert_eq!(without(misplaced), PlainReason::Malformed(Malformed::NoData), "another wire type");
}

#[test]
fn unusual_but_sound_messages_are_read() {
    let group = [0x7B, 0x08, 0x01, 0x7C];
    let tag = message().bytes(1, "k").bytes(2, "v").number(9, 9);
    let record = message()
        .bytes(3, "first")
        .number(1, 1)
        .number(99, 4)
        .bytes(4, tag.0)
        .raw(&[0x08, 0x80, 0x00])
        .bytes(3, "last");
    let data = message()
        .raw(&group)
        .bytes(3, record.0)
        .number(1, 77)
        .number(2, 77)
        .number(3, 77)
        .bytes(50, "unknown")
        .raw(&[0x7D, 1, 2, 3, 4])
        .raw(&[0x79, 1, 2, 3, 4, 5, 6, 7, 8])
        .key("a")
        .key("a")
        .record(1, None, "")
        .framed();
    let records = records(&data);
    let parts: Vec<_> = records.iter().map(parts).collect();
    assert_eq!(parts, [(0, "a", None, &b"last"[..]), (1, "a", None, b"")]);
}

#[test]
fn aggregates_without_records_are_sound_and_empty() {
    for data in [message().key("a").hash_key("1").framed(), message().number(15, 7).framed()] {
        let records = aggregate(Deaggregator::new().deaggregate(&data));
        assert_eq!((records.total(), records.count()), (0, 0));
    }
}

#[test]
fn an_aggregate_in_an_aggregate_stays_as_it_is() {
    let inner = sound().framed();
    let outer = message().key("k").record(0, None, &inner).framed();
    let records = records(&outer);
    assert_eq!(records.iter().map(|r| &r.data).collect::<Vec<_>>(), [&inner]);
}

#[test]
fn an_explicit_hash_key_belongs_to_its_record_only() {
    let data = message().key("a").hash_key("7").record(0, Some(0), "r0").record(0, None, "r1").framed();
    let records = records(&data);
    let hash_keys: Vec<_> = records.iter().map(|r| r.explicit_hash_key.as_deref()).collect();
    assert_eq!(hash_keys, [Some("7"), None]);
}

#[test]
fn explicit_hash_keys_keep_their_text() {
    for text in ["+5", "0005", "-0", "340282366920938463463374607431768211455"] {
        let data = message().key("a").hash_key(text).record(0, Some(0), "r").framed();
        assert_eq!(records(&data)[0].explicit_hash_key.as_deref(), Some(text));
    }
}

/// The Java KCL cuts indexes to 32 bits, so that 2^32 and 2^63 give the record the key of entry 0: a record under a
/// wrong key is worse than one that is reported.
#[test]
fn indexes_count_with_all_their_bits() {
    for index in [2, 1 << 31, (1 << 32) - 2, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 1 << 63, u64::MAX] {
        let data = sound().record(index, None, "r2").record(0, None, "r3").framed();
        let damage = match reason(&data) {
            PlainReason::DamagedRecord(damage) => damage,
            other => panic!("{other}"),
        };
        assert_eq!(damage.sub_sequence_number, 2);
        assert_eq!(damage.fault, RecordFault::PartitionKeyIndex { index, entries: 2 });

        let data = sound().hash_key("1").record(0, Some(index), "r2").framed();
        let prefix = Deaggregator::new().damage(DamagePolicy::KeepPrefix).deaggregate(&data);
        let records = aggregate(prefix);
        let fault = RecordFault::ExplicitHashKeyIndex { index, entries: 1 };
        assert_eq!(records.damage().map(|damage| damage.fault), Some(fault));
        assert_eq!((records.total(), records.dropped_damaged(), records.count()), (3, 1, 2));
    }
}

#[test]
fn keys_that_are_not_utf8_are_repaired_and_hashed_as_repaired() {
    let data = message().key([b'a', 0xFF, 0xED, 0xA0, 0x80]).record(0, None, "r").framed();
    let repaired = "a\u{FFFD}\u{FFFD}";
    assert_eq!(records(&data)[0].partition_key, repaired);

    let hash = partition_key_hash(repaired.as_bytes());
    for (start, end, expected) in [(hash, hash, 1), (0, hash - 1, 0), (hash + 1, u128::MAX, 0)] {
        let range = HashKeyRange::new(start, end).unwrap();
        let records = aggregate(deaggregate(&data, Some(&range), OutOfRangePolicy::DropRecord));
        assert_eq!(records.count(), expected);
    }
    let data = message().key("a").hash_key([b'5', 0xFF]).record(0, Some(0), "r").framed();
    assert!(
        matches!(reason(&data), PlainReason::DamagedRecord(d) if d.fault == RecordFault::ExplicitHashKeyText)
    );
}

#[test]
fn a_key_of_absurd_length_is_repaired_once_for_all_its_records() {
    let tables = (0..50).fold(message().key(vec![0xFF; 5000]), |message, _| message.key("unused"));
    let data = tables.record(0, None, "r0").record(0, None, "r1").framed();
    let records = records(&data);
    assert_eq!(records[0].partition_key, "\u{FFFD}".repeat(5000));
    assert_eq!(records[0].partition_key.as_ptr(), records[1].partition_key.as_ptr());
}

#[test]
fn keys_read_alike_whether_few_or_many_records_use_them() {
    for records_per_key in [1, 3, 4, 5, 40] {
        let tables = message().key("a").key([b'b', 0xFF]).hash_key("1").hash_key("02");
        let uses = 2 * records_per_key;
        let data = (0..uses).fold(tables, |message, i| message.record(i % 2, Some(i % 2), "r")).framed();
        let records = records(&data);
        assert_eq!(records.len() as u64, uses);
        for (record, sub) in records.iter().zip(0..) {
            let (key, hash_key) = [("a", "1"), ("b\u{FFFD}", "02")][sub as usize % 2];
            assert_eq!(parts(record), (sub, key, Some(hash_key), &b"r"[..]));
        }
    }
}

#[test]
fn deep_nesting_of_unknown_groups_does_not_exhaust_the_stack() {
    let open = vec![0x7B; 100_000];
    let close = vec![0x7C; 100_000];
    let reason = reason(&framed(&[open, close].concat()));
    assert_eq!(reason, PlainReason::Malformed(Malformed::Protobuf));
}
