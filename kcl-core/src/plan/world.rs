//! A stream with a history, a lease table and consumers in miniature, to test the planners against.
//!
//! Every open shard holds one record for each tick of the clock, whose sequence number is the tick. So what a
//! start position promises and what was delivered can be compared exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::bounds;
use super::{CleanupInput, SyncInput, SyncPlan, child_leases, leases_to_delete, parents_done, plan_sync};
use crate::lease::{Lease, LeaseTable};
use crate::model::{
    Checkpoint, ChildShard, HashKeyRange, InitialPosition, Position, Shard, ShardId, StreamIdentity, WorkerId,
};

pub(super) fn time(tick: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(tick)
}

fn tick(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

pub(super) fn id(number: usize) -> ShardId {
    format!("shardId-{number:012}").into()
}

pub(super) fn stream() -> StreamIdentity {
    StreamIdentity { arn: "arn:aws:kinesis:eu-west-1:123456789012:stream/orders".into(), created_millis: 7 }
}

pub(super) fn range(start: u128, end: u128) -> HashKeyRange {
    HashKeyRange::new(start, end).unwrap()
}

pub(super) fn at(sequence: u64) -> Checkpoint {
    Checkpoint::At(Position::new(sequence.into(), 0))
}

/// A shard by hand.
pub(super) fn shard(number: usize, parents: &[usize], keys: (u128, u128), life: (u64, Option<u64>)) -> Shard {
    Shard {
        id: id(number),
        parent: parents.first().map(|parent| id(*parent)),
        adjacent_parent: parents.get(1).map(|parent| id(*parent)),
        hash_key_range: range(keys.0, keys.1),
        starting_sequence_number: life.0.into(),
        ending_sequence_number: life.1.map(Into::into),
    }
}

/// A row by hand, as ours would have made it for this shard, but without stream and start time.
pub(super) fn lease(shard: &Shard, checkpoint: Checkpoint) -> Lease {
    let mut lease = Lease::new(shard.id.clone(), checkpoint);
    lease.parents = shard.parents().cloned().collect();
    lease.hash_key_range = Some(shard.hash_key_range);
    lease
}

pub(super) fn table(leases: impl IntoIterator<Item = Lease>) -> LeaseTable {
    leases.into_iter().map(|lease| (lease.shard.clone(), Arc::new(lease))).collect()
}

/// What happens to the world next. The numbers choose among what is there.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Split(usize),
    Merge(usize),
    Wait,
    /// Syncs, and crashes after this many rows.
    Sync(usize),
    /// Reads one shard; only half of what there is, or all.
    Read {
        which: usize,
        half: bool,
    },
    /// Reads one shard to its end; or crashes after the first child's row is made.
    End {
        which: usize,
        crash: bool,
    },
    Cleanup,
    /// The oldest closed shard leaves the listing, if it was finished.
    Expire,
    /// The oldest closed shard leaves the listing, finished or not.
    Trim,
}

pub(super) fn steps(with_loss: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => any::<usize>().prop_map(Step::Split),
        3 => any::<usize>().prop_map(Step::Merge),
        3 => Just(Step::Wait),
        2 => (0..4usize).prop_map(Step::Sync),
        2 => Just(Step::Sync(usize::MAX)),
        4 => any::<(usize, bool)>().prop_map(|(which, half)| Step::Read { which, half }),
        6 => any::<(usize, bool)>().prop_map(|(which, crash)| Step::End { which, crash }),
        2 => Just(Step::Cleanup),
        2 => Just(Step::Expire),
        u32::from(with_loss) => Just(Step::Trim),
    ];
    prop::collection::vec(step, 0..60)
}

/// Where the application starts, timestamps before and after the first splits included.
pub(super) fn initial_positions() -> impl Strategy<Value = InitialPosition> {
    prop_oneof![
        Just(InitialPosition::TrimHorizon),
        Just(InitialPosition::Latest),
        (0..30u64).prop_map(|tick| InitialPosition::AtTimestamp(time(tick))),
    ]
}

#[derive(Clone, Debug)]
struct ModelShard {
    shard: Shard,
    born: u64,
    closed: Option<u64>,
    listed: bool,
    /// It left the listing before it was finished, or before the application started.
    lost: bool,
    /// The ticks delivered: from, to (exclusive).
    delivered: Option<(u64, u64)>,
    rows_made: usize,
}

#[derive(Clone, Debug)]
pub(super) struct World {
    shards: Vec<ModelShard>,
    now: u64,
    initial: InitialPosition,
    /// When the first row was made.
    started: Option<u64>,
    pub(super) leases: LeaseTable,
}

impl World {
    pub(super) fn new(initial: InitialPosition, shards: usize) -> Self {
        let width = u128::MAX / shards as u128;
        let shards = (0..shards)
            .map(|number| {
                let first = width * number as u128;
                let last = if number + 1 == shards { u128::MAX } else { first + width - 1 };
                ModelShard::new(shard(number, &[], (first, last), (1, None)))
            })
            .collect();
        Self { shards, now: 1, initial, started: None, leases: BTreeMap::new() }
    }

    pub(super) fn run(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Split(which) => self.split(which),
            Step::Merge(which) => self.merge(which),
            Step::Wait => self.now += 1,
            Step::Sync(rows) => self.sync(rows),
            Step::Read { which, half } => {
                if let Some(shard) = self.pick_unfinished(which) {
                    self.read(&shard, half);
                }
            }
            Step::End { which, crash } => {
                if let Some(shard) = self.pick_unfinished(which)
                    && self.read(&shard, false)
                {
                    self.end(&shard, crash);
                }
            }
            Step::Cleanup => self.cleanup(),
            Step::Expire => self.drop_oldest(true),
            Step::Trim => self.drop_oldest(false),
        }
    }

    fn add(&mut self, parents: &[usize], keys: (u128, u128)) {
        let number = self.shards.len();
        self.shards.push(ModelShard::new(shard(number, parents, keys, (self.now, None))));
    }

    fn close(&mut self, number: usize) {
        let model = &mut self.shards[number];
        model.closed = Some(self.now);
        model.shard.ending_sequence_number = Some(self.now.saturating_sub(1).into());
    }

    fn open(&self) -> Vec<usize> {
        let mut open: Vec<_> = (0..self.shards.len()).filter(|n| self.shards[*n].closed.is_none()).collect();
        open.sort_by_key(|number| self.shards[*number].shard.hash_key_range.start());
        open
    }

    fn split(&mut self, which: usize) {
        let open = self.open();
        let parent = open[which % open.len()];
        let (start, end) = bounds(&self.shards[parent].shard.hash_key_range);
        if end - start < 2 {
            return;
        }
        self.close(parent);
        let middle = start + (end - start) / 2;
        self.add(&[parent], (start, middle));
        self.add(&[parent], (middle + 1, end));
    }

    fn merge(&mut self, which: usize) {
        let open = self.open();
        if open.len() < 2 {
            return;
        }
        let left = which % (open.len() - 1);
        let (left, right) = (open[left], open[left + 1]);
        self.close(left);
        self.close(right);
        let start = self.shards[left].shard.hash_key_range.start();
        let end = self.shards[right].shard.hash_key_range.end();
        self.add(&[left, right], (start, end));
    }

    pub(super) fn listing(&self) -> Vec<Shard> {
        self.shards.iter().filter(|model| model.listed).map(|model| model.shard.clone()).collect()
    }

    pub(super) fn plan(&self) -> SyncPlan {
        plan_sync(&SyncInput {
            shards: &self.listing(),
            leases: &self.leases,
            initial: self.initial,
            stream: &stream(),
            start_timestamp: Some(time(self.now)),
            first_start: self.leases.is_empty(),
        })
    }

    /// Creates the planned rows, but no more than this many.
    pub(super) fn sync(&mut self, rows: usize) {
        for planned in self.plan().create.into_iter().take(rows) {
            self.create(planned.lease);
        }
    }

    fn create(&mut self, lease: Lease) {
        let number = self.number(&lease.shard);
        if !self.leases.contains_key(&lease.shard) {
            self.started.get_or_insert(self.now);
            self.shards[number].rows_made += 1;
            self.leases.insert(lease.shard.clone(), Arc::new(lease));
        }
    }

    fn number(&self, shard: &ShardId) -> usize {
        shard.as_str().strip_prefix("shardId-").unwrap().parse().unwrap()
    }

    fn pick_unfinished(&self, which: usize) -> Option<ShardId> {
        let unfinished: Vec<_> = self.leases.values().filter(|lease| !lease.is_ended()).collect();
        (!unfinished.is_empty()).then(|| unfinished[which % unfinished.len()].shard.clone())
    }

    /// Reads a shard if it may be started; whether it is now at its end.
    fn read(&mut self, shard: &ShardId, half: bool) -> bool {
        let number = self.number(shard);
        let lease = Arc::clone(&self.leases[shard]);
        if !self.shards[number].listed {
            return true;
        }
        let plan = self.plan();
        if !parents_done(&lease, &self.leases, &|parent| plan.awaits(parent)).is_done() {
            return false;
        }
        self.assert_parents_delivered(number);
        let model = &mut self.shards[number];
        let from = match lease.checkpoint {
            Checkpoint::At(position) => position.sequence.limbs()[2] + 1,
            Checkpoint::TrimHorizon => model.born,
            Checkpoint::AtTimestamp | Checkpoint::Latest => {
                model.born.max(tick(lease.start_timestamp.unwrap()))
            }
            Checkpoint::ShardEnd => unreachable!(),
        };
        let end = model.closed.unwrap_or(self.now);
        let to = if half { from.midpoint(end.max(from)) } else { end.max(from) };
        match &mut model.delivered {
            Some((_, delivered_to)) => {
                assert_eq!(*delivered_to, from, "{shard} is read again or with a gap");
                *delivered_to = to;
            }
            none if to > from => *none = Some((from, to)),
            _ => {}
        }
        if to > from {
            Arc::make_mut(self.leases.get_mut(shard).unwrap()).checkpoint = at(to - 1);
        }
        self.shards[number].closed.is_some() && to >= end
    }

    fn end(&mut self, shard: &ShardId, crash: bool) {
        let listed: Vec<_> = self.listing();
        let children: Vec<_> = listed
            .iter()
            .filter(|child| child.parents().any(|parent| parent == shard))
            .map(ChildShard::from)
            .collect();
        let me = WorkerId::from("w");
        let leases = child_leases(&self.leases[shard], &children, &me, self.initial, &stream());
        for lease in leases.into_iter().take(if crash { 1 } else { usize::MAX }) {
            self.create(lease);
        }
        if !crash {
            let row = Arc::make_mut(self.leases.get_mut(shard).unwrap());
            row.checkpoint = Checkpoint::ShardEnd;
            row.children = children.into_iter().map(|child| child.id).collect();
        }
    }

    /// The rows at `SHARD_END`, all seen so for an hour.
    pub(super) fn ended_for(&self) -> BTreeMap<ShardId, Duration> {
        let ended = self.leases.values().filter(|lease| lease.is_ended());
        ended.map(|lease| (lease.shard.clone(), Duration::from_secs(3600))).collect()
    }

    pub(super) fn cleanup(&mut self) {
        for shard in self.plan_cleanup() {
            self.leases.remove(&shard);
        }
    }

    pub(super) fn plan_cleanup(&self) -> Vec<ShardId> {
        let plan = leases_to_delete(&CleanupInput {
            leases: &self.leases,
            shards: &self.listing(),
            ended_for: &self.ended_for(),
            retention: Duration::from_secs(900),
        });
        plan.delete.into_iter().map(|deletion| deletion.lease.shard).collect()
    }

    fn drop_oldest(&mut self, only_finished: bool) {
        let oldest = (0..self.shards.len()).find(|number| self.shards[*number].listed);
        let Some(oldest) = oldest.filter(|number| self.shards[*number].closed.is_some()) else { return };
        let finished = self.is_delivered(oldest) && self.started.is_some();
        let ended = self.leases.get(&id(oldest)).is_none_or(|lease| lease.is_ended());
        if only_finished && !(finished && ended) {
            return;
        }
        self.shards[oldest].listed = false;
        self.shards[oldest].lost |= !(finished && ended);
    }

    /// The first tick the start position promises.
    fn promised_from(&self) -> u64 {
        match self.initial {
            InitialPosition::TrimHorizon => 0,
            InitialPosition::Latest => self.started.unwrap_or(u64::MAX),
            InitialPosition::AtTimestamp(time) => tick(time),
        }
    }

    fn is_delivered(&self, number: usize) -> bool {
        let model = &self.shards[number];
        let from = model.born.max(self.promised_from());
        let to = model.closed.unwrap_or(self.now);
        from >= to || model.delivered.is_some_and(|(first, last)| first <= from && last >= to)
    }

    /// S-1, on the records themselves.
    fn assert_parents_delivered(&self, number: usize) {
        for parent in self.shards[number].shard.parents() {
            let parent = self.number(parent);
            assert!(
                self.shards[parent].lost || self.is_delivered(parent),
                "{number} starts before its parent {parent} was delivered"
            );
        }
    }

    /// S-2: every open shard has an unfinished lease or descends from one.
    pub(super) fn assert_covered(&self) {
        for number in self.open() {
            let mut ahead = vec![number];
            let mut covered = false;
            while let Some(number) = ahead.pop() {
                covered |= self.leases.get(&id(number)).is_some_and(|lease| !lease.is_ended());
                ahead.extend(self.shards[number].shard.parents().map(|parent| self.number(parent)));
            }
            assert!(covered, "nothing covers {number}");
        }
    }

    /// Lets consumers work until nothing is left to read, and checks what was promised.
    pub(super) fn finish(&mut self) {
        self.now += 1;
        loop {
            let before = self.leases.clone();
            self.sync(usize::MAX);
            let unfinished: Vec<_> =
                self.leases.values().filter(|lease| !lease.is_ended()).map(|l| l.shard.clone()).collect();
            for shard in unfinished {
                if self.read(&shard, false) {
                    self.end(&shard, false);
                }
            }
            self.cleanup();
            if self.leases == before {
                break;
            }
        }
        self.assert_covered();
        let mut unfinished = BTreeSet::new();
        for (number, model) in self.shards.iter().enumerate() {
            assert!(model.lost || self.is_delivered(number), "{number} was not delivered: {model:?}");
            assert!(model.rows_made <= 1, "{number} got a lease again");
            if let Some((from, _)) = model.delivered {
                assert!(from >= self.promised_from(), "{number} was read from before the start: {model:?}");
            }
            if self.leases.get(&id(number)).is_some_and(|lease| !lease.is_ended()) {
                unfinished.insert(number);
            }
        }
        assert_eq!(unfinished, self.open().into_iter().collect(), "only open shards are left");
    }
}

impl ModelShard {
    fn new(shard: Shard) -> Self {
        let born = shard.starting_sequence_number.limbs()[2];
        Self { shard, born, closed: None, listed: true, lost: false, delivered: None, rows_made: 0 }
    }
}
