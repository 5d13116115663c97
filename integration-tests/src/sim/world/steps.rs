//! What the world does, step by step.

use std::time::Duration;

use bytes::Bytes;
use kcl_core::fleet::FleetRowKey;
use kcl_core::lease::{Consistency, FleetChange, FleetWrite};
use kcl_core::testing::{Part, STREAM};
use kcl_local::kinesis::{NewRecord, ShardFilter};
use kpl_aggregation::Aggregator;

use super::{Act, MS, SECOND, World};
use crate::sim::judge::{Life, Promise};
use crate::sim::plan::{Deed, Frozen, Step};

const KEYS: [&str; 16] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];

impl World {
    pub(super) async fn step(&mut self, step: Step) {
        match step {
            Step::Put { keys, most, padding } => self.put(keys, most, padding),
            Step::PutOnEach => self.put_on_each(),
            Step::To(worker, deed) => self.deed(&worker, deed).await,
            Step::Reshard => self.reshard(),
            Step::ReshardAll => self.reshard_all(),
            Step::Start => {
                if self.fleet.workers().len() < self.plan.most_workers {
                    let name = self.next_name();
                    self.start(&name);
                }
            }
            Step::Crash => {
                if let Some(life) = self.spare() {
                    self.crash(&life).await;
                }
            }
            Step::Restart => {
                if let Some(life) = self.anyone() {
                    self.crash(&life).await;
                    self.start(&life.worker);
                }
            }
            Step::Stop => {
                if let Some(life) = self.spare() {
                    self.leave(&life);
                }
            }
            Step::Stall(time) => {
                if let Some(life) = self.anyone() {
                    self.stall(life, time);
                }
            }
            Step::Freeze(part, time) => {
                if let Some(life) = self.anyone() {
                    self.freeze(life, part, time);
                }
            }
            Step::Befall(mishap, share) => {
                if let Some(life) = self.anyone() {
                    self.judge.say(format!("{life} suffers {mishap}, share {share:.3}"));
                    if let Some(seat) = self.seats.borrow().get(&life.worker) {
                        seat.befall(mishap, share);
                    }
                }
            }
            Step::Calm => {
                if let Some(life) = self.anyone() {
                    self.judge.say(format!("{life} suffers nothing more"));
                    if let Some(seat) = self.seats.borrow().get(&life.worker) {
                        seat.calm();
                    }
                }
            }
            Step::Deploy => {
                for life in self.lives() {
                    let name = self.next_name();
                    self.start(&name);
                    let after = MS * self.rng.u32(500..4_000);
                    self.at_end_of(after, Act::Leave(life));
                }
            }
            Step::Outage(time) => {
                let mut number = 0;
                for life in self.lives() {
                    number += 1;
                    if self.rng.bool() {
                        self.crash(&life).await;
                    } else {
                        self.leave(&life);
                    }
                }
                for _ in 0..number {
                    let name = self.next_name();
                    self.at_end_of(time, Act::Start(name));
                }
            }
            Step::CutTable { all, time } => {
                for life in self.lives() {
                    if all || self.rng.bool() {
                        self.judge.say(format!("{life} is cut off from the lease table for {time:?}"));
                        if let Some(seat) = self.seats.borrow().get(&life.worker) {
                            seat.befall(kcl_core::testing::Mishap::NoLeases, 1.0);
                        }
                        self.at_end_of(time, Act::Calm(life));
                    }
                }
            }
            Step::LateAnswers { late, time } => {
                if let Some(life) = self.anyone() {
                    self.judge.say(format!("{life} has its fleet writes answered {late:?} late"));
                    if let Some(seat) = self.seats.borrow().get(&life.worker) {
                        seat.answer_late(late);
                    }
                    let cut = late.mul_f64(3.0 + 3.0 * self.rng.f64());
                    self.at_end_of(cut, Act::Cut(life.clone()));
                    self.at_end_of(cut + time, Act::Calm(life));
                }
            }
            Step::Pause(time) => {
                if let Some(life) = self.anyone()
                    && let Ok(handle) = self.fleet.handle(&life.worker)
                {
                    self.judge.say(format!("{life} is paused for {time:?}"));
                    handle.pause(None).await;
                    self.at_end_of(time, Act::Resume(life));
                }
            }
            Step::ExpireIterators => {
                self.judge.say("every shard iterator expires");
                self.model(|kinesis| kinesis.expire_iterators(STREAM));
            }
            Step::NotSilent => {
                let quite_new = self.plan.settings.lease_duration * 4 + SECOND * 15;
                let silent = self.judge.unacknowledged_before(self.now().saturating_sub(quite_new));
                if let Some(first) = silent.first() {
                    let seen =
                        format!("{} records are not processed after {quite_new:?}: {first} …", silent.len());
                    self.judge.find(Promise::L3, seen);
                }
            }
        }
    }

    async fn deed(&mut self, worker: &str, deed: Deed) {
        if let Deed::Strike(strike) = deed {
            // It may be yet to start.
            return self.strikes.arm(worker, strike);
        }
        let Some(life) = self.lives().into_iter().find(|life| life.worker == worker) else {
            return self.judge.find(Promise::B1, format!("the script is wrong: {worker} does not run"));
        };
        match deed {
            Deed::Leave => self.leave(&life),
            Deed::Stall(time) => self.stall(life, time),
            Deed::Freeze(part, time) => self.freeze(life, part, time),
            Deed::Strike(_) => {}
            Deed::ThrottleFleetRows { reads, time } => {
                self.judge.say(format!("the fleet rows throttle {life} for {time:?}"));
                if let Some(seat) = self.seats.borrow().get(worker) {
                    seat.throttle_fleet_rows(reads);
                }
                self.at_end_of(time, Act::Calm(life));
            }
            Deed::HoldDeletions(time) => {
                self.judge.say(format!("deletions of {life} take {time:?}"));
                if let Some(seat) = self.seats.borrow().get(worker) {
                    seat.hold_deletions(time);
                }
            }
            Deed::Leap(clock, by) => {
                self.judge.say(format!("a clock of {life} leaps ahead by {by:?}: {clock:?}"));
                if let Some(seat) = self.seats.borrow().get(worker) {
                    seat.clocks.leap(clock, by);
                }
                if by > self.plan.settings.lease_duration {
                    self.judge.suspends(&life);
                }
            }
            Deed::Evict => self.evict(&life).await,
        }
    }

    /// Does what others do that hold a member for dead.
    async fn evict(&self, life: &Life) {
        let read = self.table.fleet_row(FleetRowKey::FIRST, Consistency::Strong).await;
        let members = read.ok().flatten().map(|row| row.workers).unwrap_or_default();
        let prefix = format!("{}:", life.worker);
        let Some((worker, entry)) = members.into_iter().find(|(id, _)| id.as_str().starts_with(&prefix))
        else {
            return self.judge.find(Promise::B1, format!("the script is wrong: {life} is no member"));
        };
        let change = FleetChange::Remove { worker, heartbeat: entry.heartbeat };
        let answer = self.table.change_fleet(FleetRowKey::FIRST, &change).await;
        self.judge.say(format!("{life} is removed: {}", matches!(answer, Ok(FleetWrite::Applied(_)))));
    }

    fn stall(&mut self, life: Life, time: Duration) {
        self.judge.say(format!("{life} is stalled for {time:?}"));
        self.must(|fleet| fleet.stall(&life.worker));
        self.at_end_of(time, Act::Wake(life));
    }

    /// Puts a record on each open shard, each with a key of its own.
    fn put_on_each(&self) {
        let open = self.kinesis.shards(STREAM, ShardFilter::AtLatest).expect("the stream exists");
        for start in open.iter().map(|shard| shard.hash_key_range.start) {
            let key = format!("at-{start}");
            for payload in self.judge.put(&key, 1, false) {
                let record = NewRecord::new(&*key, payload).with_explicit_hash_key(start);
                self.model(|kinesis| kinesis.put_record(STREAM, record));
            }
        }
    }

    fn freeze(&mut self, life: Life, part: Frozen, time: Duration) {
        let part = match part {
            Frozen::Supervisor => Part::Supervisor,
            Frozen::LeaseSide => Part::LeaseSide,
            Frozen::Consumer => {
                let Ok(handle) = self.fleet.handle(&life.worker) else { return };
                let shards: Vec<_> = handle.snapshot().shards.into_keys().collect();
                if shards.is_empty() {
                    return;
                }
                let shard = shards[self.rng.usize(..shards.len())].clone();
                self.judge.freezes(&life, &shard);
                Part::Consumer(shard)
            }
        };
        self.judge.say(format!("{life}: {part} is frozen for {time:?}"));
        self.must(|fleet| fleet.freeze(&life.worker, part));
        self.at_end_of(time, Act::Wake(life));
    }

    /// Puts records of some keys: a few of each, plain or as one aggregate.
    pub(super) fn put(&mut self, keys: usize, most: u64, padding: usize) {
        for _ in 0..keys {
            let key = KEYS[self.rng.usize(..KEYS.len())];
            let count = self.rng.u64(1..=most);
            let aggregated = count > 1 && self.rng.bool();
            let padding = if padding == 0 { 0 } else { self.rng.usize(..padding) };
            let payloads = self.judge.put(key, count, aggregated);
            let payloads = payloads.into_iter().map(|text| Bytes::from(format!("{text} {:padding$}", "")));
            if aggregated {
                let mut aggregator = Aggregator::new();
                for payload in payloads {
                    let full = aggregator.add(key, None, payload).expect("small records fit");
                    assert!(full.is_none(), "a few small records do not fill an aggregate");
                }
                if let Some(record) = aggregator.finish() {
                    self.model(|kinesis| kinesis.put_record(STREAM, NewRecord::new(key, record.data)));
                }
            } else {
                for payload in payloads {
                    self.model(|kinesis| kinesis.put_record(STREAM, NewRecord::new(key, payload)));
                }
            }
        }
    }

    /// Splits a random open shard, or merges a random pair of neighbours.
    fn reshard(&mut self) {
        let mut open = self.kinesis.shards(STREAM, ShardFilter::AtLatest).expect("the stream exists");
        open.sort_by_key(|shard| shard.hash_key_range.start);
        // More than a few shards would make runs slow and find nothing more.
        if open.len() > 1 && (self.rng.bool() || open.len() > 12) {
            let left = self.rng.usize(..open.len() - 1);
            let pair = (&open[left].shard_id, &open[left + 1].shard_id);
            self.judge.say(format!("{} and {} are merged", pair.0, pair.1));
            self.model(|kinesis| kinesis.merge_shards(STREAM, pair.0, pair.1));
        } else {
            let shard = &open[self.rng.usize(..open.len())];
            let range = &shard.hash_key_range;
            if range.end - range.start > 2 {
                let middle = range.start + (range.end - range.start) / 2 + 1;
                self.judge.say(format!("{} is split", shard.shard_id));
                self.model(|kinesis| kinesis.split_shard(STREAM, &shard.shard_id, middle));
            }
        }
        self.judge.stream_changed();
    }

    fn reshard_all(&mut self) {
        let open = self.kinesis.shards(STREAM, ShardFilter::AtLatest).expect("the stream exists").len();
        let target = if open > 6 || open > 1 && self.rng.bool() { open.div_ceil(2) } else { open * 2 };
        let target = u32::try_from(target).unwrap_or(1);
        self.judge.say(format!("the stream is to have {target} shards"));
        self.model(|kinesis| kinesis.update_shard_count(STREAM, target));
        self.judge.stream_changed();
    }
}
