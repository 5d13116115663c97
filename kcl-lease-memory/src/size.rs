//! The size a row would have as a DynamoDB item, in the attributes that `kcl-lease-dynamo` writes: what calls cost.

use std::time::SystemTime;

use kcl_core::fleet::{FleetEntry, FleetRow, Gave};
use kcl_core::lease::Lease;
use kcl_core::model::{HashKeyRange, Position};

use crate::rows::Row;

/// The name of an attribute, and a text.
const fn text(name: usize, value: usize) -> usize {
    name + value
}

/// The name of an attribute, and a number: two significant digits to a byte, and one more.
fn number(name: usize, value: u64) -> usize {
    name + number_value(value)
}

fn number_value(value: u64) -> usize {
    let digits = value.to_string();
    digits.trim_matches('0').len().div_ceil(2) + 1
}

/// The size of a row with this key.
pub(crate) fn row_bytes(key: &str, row: &Row) -> usize {
    match row {
        Row::Lease(lease) => lease_bytes(lease),
        Row::Fleet(row) => fleet_bytes(key, row),
        Row::Unreadable(_) => text(8, key.len()),
        Row::Foreign(kind) => text(8, key.len()) + text(10, kind.len()),
    }
}

fn lease_bytes(lease: &Lease) -> usize {
    let owner = |name: usize, worker: &Option<kcl_core::WorkerId>| {
        worker.as_ref().map_or(0, |worker| text(name, worker.as_str().len()))
    };
    let set = |name: usize, shards: &std::collections::BTreeSet<kcl_core::ShardId>| {
        if shards.is_empty() {
            0
        } else {
            name + shards.iter().map(|shard| shard.as_str().len()).sum::<usize>()
        }
    };
    let position = |names: (usize, usize), position: &Position| {
        text(names.0, position.sequence.to_string().len()) + number(names.1, position.sub_sequence)
    };
    let keys = |range: &HashKeyRange| {
        text(15, range.start().to_string().len()) + text(13, range.end().to_string().len())
    };
    text(8, lease.shard.as_str().len())
        + text(10, "LEASE".len())
        + number(12, lease.counter)
        + number(28, lease.owner_switches)
        + text(10, lease.checkpoint.sequence_text().len())
        + number(27, lease.checkpoint.sub_sequence())
        + owner(10, &lease.owner)
        + owner(15, &lease.requested_by)
        + owner(15, &lease.checkpoint_owner)
        + lease.pending.as_ref().map_or(0, |pending| {
            position((17, 34), &pending.position)
                + pending.state.as_ref().map_or(0, |state| text(22, state.len()))
        })
        + set(13, &lease.parents)
        + set(13, &lease.children)
        + lease.hash_key_range.as_ref().map_or(0, keys)
        + lease.start_timestamp.map_or(0, |at| number(20, millis(at)))
        + lease.stream.as_ref().map_or(0, |stream| text(14, stream.to_string().len()))
        + lease.token.map_or(0, |_| text(12, 36))
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn fleet_bytes(key: &str, row: &FleetRow) -> usize {
    let members =
        row.workers.iter().map(|(id, entry)| 1 + id.as_str().len() + entry_bytes(entry)).sum::<usize>();
    text(8, key.len())
        + text(10, "FLEET".len())
        + (7 + 3 + members)
        + row.rows.map_or(0, |rows| number(4, u64::from(rows)))
}

fn entry_bytes(entry: &FleetEntry) -> usize {
    let millis = u64::try_from(entry.lease_duration.as_millis()).unwrap_or(u64::MAX);
    let numbers = [
        (2, entry.heartbeat),
        (1, millis),
        (1, u64::from(entry.version)),
        (2, entry.moves),
        (1, entry.leases),
        (4, entry.load),
        (2, entry.housekeeping),
    ];
    let optional = [(3, entry.cpu.map(u64::from)), (3, entry.limits.leases), (7, entry.limits.load)];
    let optional: Vec<(usize, u64)> =
        optional.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let gave = match &entry.gave {
        Gave::Many => Some(text(4, 1)),
        Gave::Leases(leases) if leases.is_empty() => None,
        Gave::Leases(leases) => Some(
            4 + 3
                + leases
                    .iter()
                    .map(|(to, shards)| {
                        1 + to.as_str().len() + shards.iter().map(|shard| shard.as_str().len()).sum::<usize>()
                    })
                    .sum::<usize>(),
        ),
    };
    let attributes = numbers.len() + optional.len() + 1 + usize::from(gave.is_some());
    3 + attributes
        + numbers.iter().chain(&optional).map(|(name, value)| number(*name, *value)).sum::<usize>()
        + text(2, entry.state.as_str().len())
        + gave.unwrap_or(0)
}

/// What writing a row costs that was so large before and is so large afterwards, in write units.
pub(crate) fn write_units(before: usize, after: usize) -> f64 {
    units(before.max(after), 1024)
}

/// What reading so many bytes costs, in read units.
pub(crate) fn read_units(bytes: usize, strong: bool) -> f64 {
    units(bytes, 4096) * if strong { 1.0 } else { 0.5 }
}

#[allow(clippy::cast_precision_loss, reason = "units are few")]
fn units(bytes: usize, size: usize) -> f64 {
    bytes.div_ceil(size).max(1) as f64
}

#[cfg(test)]
mod tests {
    use kcl_core::model::Checkpoint;

    use super::*;

    #[test]
    fn a_plain_lease_has_the_size_of_its_item() {
        let lease = Lease::new("shardId-000000000000".into(), Checkpoint::TrimHorizon);
        let counted = (8 + 20) + (10 + 5) + (12 + 1) + (28 + 1) + (10 + 12) + (27 + 1);
        assert_eq!(lease_bytes(&lease), counted);
    }

    #[test]
    fn units_are_rounded_up() {
        assert!((write_units(0, 1) - 1.0).abs() < f64::EPSILON);
        assert!((write_units(1_025, 3) - 2.0).abs() < f64::EPSILON);
        assert!((read_units(4_096, true) - 1.0).abs() < f64::EPSILON);
        assert!((read_units(4_097, false) - 1.0).abs() < f64::EPSILON);
        assert!((read_units(0, false) - 0.5).abs() < f64::EPSILON);
    }
}
