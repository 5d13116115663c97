//! What the lines of all workers add up to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, SystemTime};

use integration_tests::ledger::{Delivery, Ledger};
use integration_tests::line::Line;
use kcl_core::lease::Lease;
use kcl_core::model::Checkpoint;
use kcl_core::{Position, SequenceNumber, ShardId};
use tokio::time::Instant;

/// The time since 1970 by the clock that the workers stamp their lines with.
pub(crate) fn now() -> Duration {
    #[allow(clippy::disallowed_methods, reason = "the clock that all processes of the machine share")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

/// One hold of a lease, from the processor's creation to its last word.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) worker: &'static str,
    pub(crate) at: Duration,
    from: Checkpoint,
    /// In the order they were given out, with the time their batch began.
    pub(crate) records: Vec<(Duration, SequenceNumber)>,
    /// The last checkpoint that was answered.
    stored: Option<SequenceNumber>,
    /// Whether it ended with everything checkpointed.
    handed_over: bool,
}

/// The holds of each shard, by the time they began.
pub(crate) fn holds(lines: &[(&'static str, Line)]) -> BTreeMap<ShardId, Vec<Hold>> {
    let mut holds: BTreeMap<ShardId, Vec<Hold>> = BTreeMap::new();
    for (worker, line) in lines {
        if let Line::Held { at, shard, from } = line {
            let hold =
                Hold { worker, at: *at, from: *from, records: Vec::new(), stored: None, handed_over: false };
            holds.entry(shard.clone()).or_default().push(hold);
            continue;
        }
        let (Line::Delivered { shard, .. } | Line::Stored { shard, .. } | Line::HandedOver { shard }) = line
        else {
            continue;
        };
        // A worker's lines are in order, and it holds a lease once at a time.
        let current =
            holds.get_mut(shard).and_then(|all| all.iter_mut().rfind(|hold| hold.worker == *worker));
        let current = current.expect("nothing is told of a shard before it is held");
        match line {
            Line::Delivered { at, sequence, .. } => current.records.push((*at, *sequence)),
            Line::Stored { sequence, .. } => current.stored = Some(*sequence),
            _ => current.handed_over = true,
        }
    }
    for holds in holds.values_mut() {
        holds.sort_by_key(|hold| hold.at);
    }
    holds
}

/// A batch that began although a later hold of its shard had begun to deliver.
#[derive(Clone, Debug)]
pub(crate) struct Overlap {
    pub(crate) worker: &'static str,
    pub(crate) at: Duration,
    text: String,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The closed books.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) put: u64,
    pub(crate) delivered: u64,
    pub(crate) duplicates: u64,
    pub(crate) lost: u64,
    pub(crate) overlaps: Vec<Overlap>,
    pub(crate) holds: BTreeMap<ShardId, Vec<Hold>>,
    /// What is neither as promised nor explained.
    problems: Vec<String>,
}

impl Account {
    /// Adds up. `put` has the places of all records, `broken_off` the workers a fault kept from handing over.
    pub(crate) fn close(
        lines: &[(&'static str, Line)],
        put: &BTreeMap<ShardId, Vec<SequenceNumber>>,
        (ledger, leases): (&Ledger, &BTreeMap<ShardId, Lease>),
        broken_off: &[&str],
    ) -> Self {
        let holds = holds(lines);
        tell(ledger, lines, leases);
        let (mut problems, mut overlaps) = (ledger.broken(), Vec::new());
        for (shard, holds) in &holds {
            let placed = put.get(shard).map_or(&[][..], Vec::as_slice);
            for (index, hold) in holds.iter().enumerate() {
                let (before, after) = (&holds[..index], &holds[index + 1..]);
                problems.extend(out_of_sequence(shard, hold, placed));
                problems.extend(unexplained(shard, hold, before, broken_off));
                overlaps.extend(overlapping(shard, hold, after));
            }
        }
        Self {
            put: ledger.put(),
            delivered: ledger.delivered(),
            duplicates: ledger.duplicates(),
            lost: ledger.lost().len() as u64,
            overlaps,
            holds,
            problems,
        }
    }

    /// Fails unless nothing is lost, order held, and each duplicate is explained.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        assert!(
            self.lost == 0 && self.problems.is_empty() && self.delivered == self.put,
            "{self}; {:?}",
            &self.problems[..self.problems.len().min(5)]
        );
    }

    /// Fails if two workers delivered from a shard at the same time.
    #[track_caller]
    pub(crate) fn assert_no_overlap(&self) {
        assert!(self.overlaps.is_empty(), "L-1: {}", self.overlaps_in_words());
    }

    pub(crate) fn overlaps_in_words(&self) -> String {
        self.overlaps.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holds: usize = self.holds.values().map(Vec::len).sum();
        write!(
            f,
            "put {}, delivered {}, duplicates {}, lost {}, holds {holds}, overlapping batches {}, problems {}",
            self.put,
            self.delivered,
            self.duplicates,
            self.lost,
            self.overlaps.len(),
            self.problems.len()
        )
    }
}

/// Enters the deliveries into the ledger by the time they began.
fn tell(ledger: &Ledger, lines: &[(&'static str, Line)], leases: &BTreeMap<ShardId, Lease>) {
    let mut deliveries: Vec<_> = lines
        .iter()
        .filter_map(|(worker, line)| match line {
            Line::Delivered { at, shard, sequence, payload } => {
                Some((*at, *worker, shard, *sequence, payload))
            }
            _ => None,
        })
        .collect();
    deliveries.sort_by_key(|(at, ..)| *at);
    let (now_here, now) = (Instant::now(), now());
    for (at, worker, shard, sequence, payload) in deliveries {
        let at = now_here.checked_sub(now.saturating_sub(at)).unwrap_or(now_here);
        let delivery = Delivery { worker: worker.into(), shard: shard.clone(), at };
        ledger.deliver(payload.as_bytes(), delivery, leases);
        ledger.acknowledge(shard, Position::new(sequence, 0));
    }
    ledger.check_leases(leases);
}

/// D-1: a hold gives out what follows its checkpoint, each record once, in order and without a gap.
fn out_of_sequence(shard: &ShardId, hold: &Hold, placed: &[SequenceNumber]) -> Option<String> {
    let first = match hold.from {
        Checkpoint::At(position) => placed.partition_point(|sequence| *sequence <= position.sequence),
        _ => 0,
    };
    let expected = placed[first..].iter().take(hold.records.len());
    let delivered = hold.records.iter().map(|(_, sequence)| sequence);
    (!expected.eq(delivered)).then(|| {
        format!("D-1: {} did not give out {shard} record by record after {:?}", hold.worker, hold.from)
    })
}

/// A record comes again only if a fault broke off the hold that delivered it, after the last checkpoint that hold
/// stored.
fn unexplained(shard: &ShardId, hold: &Hold, before: &[Hold], broken_off: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    let again: BTreeSet<SequenceNumber> = hold.records.iter().map(|(_, sequence)| *sequence).collect();
    for earlier in before {
        let from = hold.from.position().map(|position| position.sequence);
        if earlier.stored > from {
            problems.push(format!("D-2: {} holds {shard} from before a stored checkpoint", hold.worker));
        }
        let repeated = earlier.records.iter().filter(|(_, sequence)| again.contains(sequence)).count();
        let is_broken_off = broken_off.contains(&earlier.worker) && !earlier.handed_over;
        if repeated > 0 && !is_broken_off {
            problems.push(format!(
                "{repeated} records of {shard} came again from {} though {} was left alone",
                hold.worker, earlier.worker
            ));
        }
    }
    problems
}

/// L-1: the batches that began after the first batch of a later hold.
fn overlapping(shard: &ShardId, hold: &Hold, after: &[Hold]) -> Vec<Overlap> {
    let next = after.iter().filter_map(|later| Some((later.records.first()?.0, later.worker))).min();
    let Some((begun, behind)) = next else { return Vec::new() };
    let late: BTreeSet<Duration> = hold.records.iter().map(|(at, _)| *at).filter(|at| *at > begun).collect();
    let overlap = |at: Duration| {
        let by = at.saturating_sub(begun);
        let text = format!("{} delivered {shard} {by:?} after {behind} had begun", hold.worker);
        Overlap { worker: hold.worker, at, text }
    };
    late.into_iter().map(overlap).collect()
}
