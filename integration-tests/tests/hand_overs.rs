//! Hand-overs between members of a fleet, cut off at every step, and other faults of the fleet protocol
//! (`docs/fleet-protocol.md`) that random runs meet only by chance. Each run is a script, and the simulator's judge
//! watches it: nothing lost, order kept, one worker at a time for a shard, no checkpoint that goes back.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a broken expectation ends the test; figures are shown"
)]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use integration_tests::sim::history::Entry;
use integration_tests::sim::judge::Promise;
use integration_tests::sim::plan::{Deed, Frozen, Plan, Reading, Step, Wire, Wishes};
use integration_tests::sim::run::run;
use integration_tests::sim::scenario::Scenario;
use integration_tests::sim::seed::Seed;
use integration_tests::sim::witness::{Blow, Checkpoints, Conduct, Request, Sleepless, Strike};
use integration_tests::sim::world::Verdict;
use kcl_core::fleet::MEMBERS_PER_ROW;
use kcl_core::testing::{Plant, StoreOperation};
use kcl_core::{Callback, CheckpointPolicy, Coordination, Settings, ShardId};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// The lease duration.
const D: Duration = Duration::from_secs(10);
/// When something happens: leases rest in balance by then.
const THEN: Duration = Duration::from_secs(12);

/// A calm run of so many workers from the start, of six shards with a record each every half second.
fn script(workers: usize, storm: Duration, deeds: &[(Duration, Step)]) -> Plan {
    let wishes = Wishes {
        shards: Some(6),
        workers: Some(workers),
        wire: Some(Wire::Model),
        reading: Some(Reading::Polling),
        coordination: Some(Coordination::Fleet),
    };
    let mut plan = Plan::draw(Seed(1), Scenario::Calm, wishes).unwrap();
    plan.settings = Settings::default();
    assert_eq!(plan.settings.lease_duration, D);
    plan.most_workers = workers + 1;
    plan.drift = 0.0;
    plan.policy = CheckpointPolicy::Manual;
    plan.conduct = Conduct {
        fail: 0.0,
        panic: 0.0,
        slowness: Duration::ZERO,
        block: 0.0,
        blocked: Duration::ZERO,
        hang: 0.0,
        spin: 0.0,
        checkpoints: Checkpoints::EachBatch,
        checkpoints_at_shutdown: true,
    };
    plan.poll_interval = MS * 200;
    plan.fetch_records = 10_000;
    plan.stream_latency = MS * 10;
    plan.store_latency = MS * 10;
    plan.page_size = NonZeroU32::MAX;
    plan.storm = storm;
    plan.rest = SECOND * 4;
    plan.steps = deeds.to_vec();
    let mut at = Duration::ZERO;
    while at < storm {
        plan.steps.push((at, Step::PutOnEach));
        at += MS * 500;
    }
    plan.steps.sort_by_key(|(at, _)| *at);
    plan
}

fn to(worker: &str, deed: Deed) -> Step {
    Step::To(worker.to_owned(), deed)
}

/// Runs a script, which must keep every promise.
fn play(what: &str, plan: Plan) -> Verdict {
    let verdict = run(plan, None);
    if let Some(breach) = &verdict.breach {
        let lines: Vec<String> = verdict.history.lines().collect();
        let last = lines[lines.len().saturating_sub(150)..].join("\n");
        assert!(verdict.breach.is_none(), "{what}: {breach}\n{last}\n{}", verdict.state);
    }
    verdict
}

/// The longest time from `since` to the end of the storm in which a shard got no batch done.
fn longest_pause(verdict: &Verdict, since: Duration) -> Duration {
    let mut shards: BTreeMap<u64, &ShardId> = BTreeMap::new();
    let mut last: BTreeMap<&ShardId, Duration> = BTreeMap::new();
    let mut longest = Duration::ZERO;
    for (at, entry) in verdict.history.entries().filter(|(at, _)| *at < verdict.plan.storm) {
        match entry {
            Entry::Began { instance, shard, .. } => drop(shards.insert(*instance, shard)),
            Entry::Ended { instance, callback: Callback::ProcessRecords, outcome: "done" } => {
                let before = last.insert(shards[instance], at);
                if at >= since {
                    longest = longest.max(at - before.unwrap_or_default());
                }
            }
            _ => {}
        }
    }
    assert_eq!(last.len(), 6, "every shard is read");
    last.values().map(|last| verdict.plan.storm - *last).fold(longest, Duration::max)
}

/// When a lease changed its owner last before the storm was over.
fn last_move(verdict: &Verdict) -> Duration {
    let mut owners: BTreeMap<&ShardId, _> = BTreeMap::new();
    let mut last = Duration::ZERO;
    for (at, entry) in verdict.history.entries().filter(|(at, _)| *at < verdict.plan.storm) {
        if let Entry::Wrote { row, .. } = entry
            && owners.insert(&row.shard, &row.owner) != Some(&row.owner)
        {
            last = at;
        }
    }
    last
}

/// Whether a blow makes a difference to a request: whether a read was made before its caller died, nobody can tell.
fn strikes(blow: Blow, request: &Request) -> bool {
    StoreOperation::WRITES.contains(&request.operation) || !matches!(blow, Blow::KilledAfter | Blow::Late)
}

/// A hand-over, seen from one of those who take part.
#[derive(Clone, Copy, Debug)]
struct Role {
    name: &'static str,
    workers: usize,
    /// What makes leases move.
    cause: Cause,
    /// Who is struck.
    who: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Cause {
    /// The first worker stops in order.
    Departure,
    /// One more worker starts.
    Arrival,
}

impl Role {
    fn plan(self, strike: Strike) -> Plan {
        let cause = match self.cause {
            Cause::Departure => to("w1", Deed::Leave),
            Cause::Arrival => Step::Start,
        };
        let deeds = [(THEN, to(self.who, Deed::Strike(strike))), (THEN, cause)];
        script(self.workers, THEN + D * 2 + SECOND * 6, &deeds)
    }

    /// The requests of an undisturbed hand-over, up to a second after the last lease has moved.
    fn requests(self) -> Vec<Request> {
        let strike = Strike { after: usize::MAX, blow: Blow::KilledBefore };
        let verdict = play(self.name, self.plan(strike));
        let end = last_move(&verdict) + SECOND;
        assert!(end > THEN + SECOND, "leases move");
        let (put, delivered) = verdict.records;
        assert_eq!(delivered, put, "{}: nothing is delivered twice", self.name);
        assert!(longest_pause(&verdict, THEN) <= MS * 1_500, "{:?}", longest_pause(&verdict, THEN));
        verdict.requests.into_iter().filter(|request| request.at <= end).collect()
    }

    /// Strikes each request of a hand-over in each way.
    fn sweep(self) {
        let requests = self.requests();
        let mut longest: BTreeMap<Blow, (Duration, String)> = BTreeMap::new();
        let mut combinations = 0;
        for (after, request) in requests.iter().enumerate() {
            for blow in Blow::ALL {
                if !strikes(blow, request) {
                    continue;
                }
                let what = format!("{}, {blow:?} at request {after}, {}", self.name, request.what);
                let verdict = play(&what, self.plan(Strike { after, blow }));
                let struck: Vec<_> = verdict.requests.iter().filter(|request| request.struck).collect();
                assert_eq!(struck.len(), 1, "{what}");
                assert_eq!(struck[0].what, request.what, "runs are the same up to the blow");
                combinations += 1;
                let pause = longest_pause(&verdict, THEN);
                let known = longest.entry(blow).or_default();
                if pause > known.0 {
                    *known = (pause, what);
                }
            }
        }
        println!("{}: {} requests, {combinations} blows", self.name, requests.len());
        for (blow, (pause, what)) in &longest {
            println!("  {blow:?}: longest pause {pause:?}: {what}");
        }
        for (blow, (pause, what)) in longest {
            let limit = if blow.kills() { D * 3 / 2 } else { D / 2 };
            assert!(pause <= limit, "{pause:?}: {what}");
        }
    }
}

#[test]
fn a_donor_that_leaves_is_struck_at_every_step() {
    Role { name: "leaving donor", workers: 2, cause: Cause::Departure, who: "w1" }.sweep();
}

#[test]
fn a_receiver_of_what_a_leaving_donor_gives_is_struck_at_every_step() {
    Role { name: "receiver from a leaving donor", workers: 3, cause: Cause::Departure, who: "w2" }.sweep();
}

#[test]
fn a_donor_that_gives_to_a_newcomer_is_struck_at_every_step() {
    Role { name: "donor for balance", workers: 2, cause: Cause::Arrival, who: "w1" }.sweep();
}

#[test]
fn a_newcomer_is_struck_at_every_step_from_its_first_request_on() {
    Role { name: "newcomer", workers: 2, cause: Cause::Arrival, who: "w3" }.sweep();
}

/// The lines of a history in which a worker's first life does something, with their times.
fn lines_of<'a>(verdict: &'a Verdict, worker: &'a str, what: &'a str) -> Vec<(Duration, String)> {
    let start = format!("{worker} {what}");
    let said = verdict.history.entries().filter_map(|(at, entry)| match entry {
        Entry::Said(text) => Some((at, text.clone())),
        _ => None,
    });
    said.filter(|(_, text)| text.starts_with(&start)).collect()
}

/// When a worker's batches began.
fn deliveries_of(verdict: &Verdict, worker: &str) -> Vec<Duration> {
    let began = verdict.history.entries().filter_map(|(at, entry)| match entry {
        Entry::Began { worker: of, callback: Callback::ProcessRecords, .. } if of == worker => Some(at),
        _ => None,
    });
    began.collect()
}

/// The ids of the members as which a worker joined.
fn ids_of(verdict: &Verdict, worker: &str) -> Vec<String> {
    let joins = lines_of(verdict, worker, "joins as ");
    joins.into_iter().map(|(_, text)| text.rsplit(' ').next().unwrap().to_owned()).collect()
}

/// That a worker was removed, delivered nothing from some time until it had joined again under another id, and went on.
fn came_back_as_another(what: &str, verdict: &Verdict, worker: &str, silent_from: Duration) {
    let ids = ids_of(verdict, worker);
    assert_eq!(ids.len(), 2, "{what}: {ids:?}");
    assert_ne!(ids[0], ids[1]);
    let (rejoined, _) = lines_of(verdict, worker, "joins as ")[1];
    assert!(rejoined > silent_from, "{what}: rejoined {rejoined:?}");
    let deliveries = deliveries_of(verdict, worker);
    let early: Vec<_> = deliveries.iter().filter(|at| **at >= silent_from && **at < rejoined).collect();
    assert!(early.is_empty(), "{what}: delivers at {early:?}, joins again at {rejoined:?}");
    assert!(deliveries.iter().any(|at| *at > rejoined), "{what}: it gets leases again");
}

/// With its lease side frozen, a processor that checkpoints waits for the answer; one that does not could go on.
#[test]
fn a_member_that_is_removed_while_it_is_stalled_drops_all_and_joins_under_another_id() {
    let time = D + SECOND * 5;
    let freeze = Deed::Freeze(Frozen::LeaseSide, time);
    for (deed, checkpoints) in [
        (Deed::Stall(time), Checkpoints::EachBatch),
        (freeze.clone(), Checkpoints::EachBatch),
        (freeze, Checkpoints::Never),
    ] {
        let what = format!("{deed:?}, {checkpoints:?}");
        let mut plan = script(3, THEN + D * 4, &[(THEN, to("w1", deed))]);
        plan.conduct.checkpoints = checkpoints;
        let verdict = play(&what, plan);
        came_back_as_another(&what, &verdict, "w1(1)", THEN + D);
        let pause = longest_pause(&verdict, THEN);
        println!("{what}: longest pause {pause:?}");
        assert!(pause <= D * 3 / 2, "{what}: {pause:?}");
    }
}

/// From everywhere between two heartbeats.
#[test]
fn fleet_rows_that_throttle_everybody_cost_nobody_its_membership() {
    let mut cases = vec![(D / 2, true, 0), (D / 2, false, 0)];
    cases.extend((0..12).flat_map(|start| [(D * 2, true, start), (D * 2, false, start)]));
    let mut longest = Duration::ZERO;
    for (time, reads, start) in cases {
        let what = format!("throttled for {time:?}, reads as well: {reads}, start {start}");
        let then = THEN + MS * 300 * start;
        let deeds =
            ["w1", "w2", "w3"].map(|worker| (then, to(worker, Deed::ThrottleFleetRows { reads, time })));
        let mut plan = script(3, then + time + D, &deeds);
        // Those in which nobody may be removed.
        plan.scenario = Scenario::TableOutages;
        let verdict = play(&what, plan);
        for worker in ["w1(1)", "w2(2)", "w3(3)"] {
            assert_eq!(ids_of(&verdict, worker).len(), 1, "{what}");
        }
        let pause = longest_pause(&verdict, then);
        assert!(pause <= time, "{what}: {pause:?}");
        longest = longest.max(pause);
    }
    println!("throttled for {:?}: longest pause {longest:?}", D * 2);
}

#[test]
fn a_process_that_was_suspended_delivers_nothing_until_a_heartbeat_is_confirmed() {
    for clock in [Sleepless::Wall, Sleepless::Boot] {
        let what = format!("{clock:?}");
        let leap = THEN + MS * 1_600;
        let verdict =
            play(&what, script(2, THEN + D * 2, &[(leap, to("w1", Deed::Leap(clock, D + SECOND * 2)))]));
        assert_eq!(ids_of(&verdict, "w1(1)").len(), 1, "{what}: its entry is still there");
        let beats = lines_of(&verdict, "w1(1)", "beats ");
        let (beat, _) = beats.iter().find(|(at, _)| *at > leap).unwrap();
        let deliveries = deliveries_of(&verdict, "w1(1)");
        let between: Vec<_> = deliveries.iter().filter(|at| **at >= leap && *at < beat).collect();
        println!("{what}: leap at {leap:?}, heartbeat at {beat:?}");
        assert!(between.is_empty(), "{what}: {between:?}");
        assert!(*beat > leap + SECOND, "{what}: it had time to deliver: {beat:?}");
        let next = deliveries.iter().find(|at| *at > beat).unwrap();
        assert!(*next < *beat + SECOND, "{what}: goes on at {next:?}");
    }
}

/// Its monotonic clock stood still, so by that alone its leases would be good for some seconds more.
#[test]
fn a_process_that_was_suspended_and_removed_meanwhile_delivers_nothing_and_joins_again() {
    for clock in [Sleepless::Wall, Sleepless::Boot] {
        // From everywhere between two heartbeats.
        for tenth in (0..34).step_by(2) {
            let what = format!("{clock:?}, {tenth} tenths of a second after");
            let (then, held) = (THEN + MS * 100 * tenth, SECOND * 2);
            let deeds = [
                (then, to("w1", Deed::Stall(held))),
                (then, to("w1", Deed::Evict)),
                (then, to("w1", Deed::Leap(clock, D + SECOND * 2))),
            ];
            let verdict = play(&what, script(2, THEN + D * 3, &deeds));
            came_back_as_another(&what, &verdict, "w1(1)", then + held);
            let taken = deliveries_of(&verdict, "w2(2)");
            assert!(taken.iter().any(|at| *at > then && *at < then + held), "{what}");
        }
    }
}

/// Nobody reads for nothing: the donor sees its lease unchanged and must not conclude that its give was lost.
#[test]
fn a_give_that_lands_after_a_listing_showed_the_lease_unchanged_is_settled_all_the_same() {
    let role = Role { name: "donor for balance", workers: 2, cause: Cause::Arrival, who: "w1" };
    let requests = role.requests();
    let after = requests.iter().position(|request| request.what.starts_with("owner of")).unwrap();
    let given = requests[after].at;
    let mut looked = 0;
    for tenth in 0..20 {
        // A fourth worker comes, which makes the donor list the table.
        let mut plan = role.plan(Strike { after, blow: Blow::Late });
        plan.most_workers = 4;
        plan.steps.push((given - MS * 300 + MS * 100 * tenth, Step::Start));
        plan.steps.sort_by_key(|(at, _)| *at);
        let what = format!("a fourth worker {tenth} tenths of a second later");
        let verdict = play(&what, plan);
        let late = lines_of(&verdict, "w1(1):", "the late owner of");
        assert_eq!(late.len(), 1, "{what}: {late:?}");
        looked += usize::from(late[0].1.contains("arrives after a look: true"));
        let pause = longest_pause(&verdict, THEN);
        assert!(pause <= D, "{what}: {pause:?}");
    }
    println!("{looked} of 20 landed after a listing");
    assert!(looked >= 5, "{looked}");
}

/// How many house-keeping passes a worker told of in a time.
fn passes(verdict: &Verdict, worker: &str, from: Duration, to: Duration) -> u64 {
    let beats = lines_of(verdict, worker, "beats ").into_iter().filter(|(at, _)| *at >= from && *at < to);
    let told = beats.map(|(_, text)| {
        let end = text.find(" passes").unwrap();
        text[..end].rsplit(' ').next().unwrap().parse().unwrap()
    });
    let told: Vec<u64> = told.collect();
    told.last().unwrap_or(&0) - told.first().unwrap_or(&0)
}

/// The times at which a worker's deletions of leases landed.
fn deletions(verdict: &Verdict, worker: &str) -> Vec<Duration> {
    let landed = verdict.history.entries().filter_map(|(at, entry)| match entry {
        Entry::Wrote { worker: by, call: "delete", .. } if by == worker => Some(at),
        _ => None,
    });
    landed.collect()
}

/// The time between two passes of house-keeping in these runs.
const PASS: Duration = Duration::from_secs(5);

/// Four shards are split or merged, and what is left of them is deleted eight seconds later.
fn house_keeping(deeds: &[(Duration, Step)]) -> Plan {
    let mut deeds = deeds.to_vec();
    deeds.extend((0..4).map(|number| (THEN - SECOND + MS * 50 * number, Step::Reshard)));
    let mut plan = script(2, THEN + PASS * 16, &deeds);
    plan.settings.shard_sync_interval = PASS;
    plan.settings.ended_lease_retention = SECOND * 8;
    plan
}

#[test]
fn a_member_that_lives_and_does_not_keep_house_is_replaced() {
    let freeze = to("w1", Deed::Freeze(Frozen::Supervisor, PASS * 14));
    let verdict = play("a frozen supervisor", house_keeping(&[(THEN, freeze)]));
    assert_eq!(ids_of(&verdict, "w1(1)").len(), 1, "it lives");
    // Three passes, one more until that is seen, and the heartbeats and plans on the way.
    let from = THEN + PASS * 7;
    let passes = passes(&verdict, "w2(2)", from, THEN + PASS * 14);
    let deleted = deletions(&verdict, "w2(2)");
    println!("{passes} passes, deletions at {deleted:?}");
    assert!(passes >= 4, "{passes}");
    assert!(deleted.len() >= 4 && deleted[0] < from + SECOND, "{deleted:?}");
}

/// One decides to delete what is done with, and what it sends is held up on the way. Another takes over and deletes the
/// same; then the first one's deletions arrive.
#[test]
fn two_members_that_keep_house_at_once_do_no_harm() {
    let undisturbed = deletions(&play("undisturbed", house_keeping(&[])), "w1(1)");
    assert!(undisturbed.len() >= 4, "{undisturbed:?}");
    let mut both = 0;
    for step in (0..12).step_by(2) {
        let at = undisturbed[0] - MS * 20 + MS * 8 * step;
        let what = format!("held at {at:?}");
        let deeds = [
            (at, to("w1", Deed::Freeze(Frozen::Supervisor, PASS * 12))),
            (at, to("w1", Deed::HoldDeletions(PASS * 8))),
        ];
        let verdict = play(&what, house_keeping(&deeds));
        assert_eq!(ids_of(&verdict, "w1(1)").len(), 1, "{what}: it was not removed");
        let (one, two) = (deletions(&verdict, "w1(1)"), deletions(&verdict, "w2(2)"));
        println!("{what}: {one:?} {two:?}");
        both += usize::from(!two.is_empty());
    }
    println!("the other deleted, too, in {both} of 6 runs");
    assert!(both >= 3, "{both}");
}

/// Those who start leave the first comparison for a while to the smallest: what it does late meets what they do.
#[test]
fn the_first_member_is_struck_at_every_step_of_the_start() {
    let plan = |strike| script(2, THEN + D, &[(Duration::ZERO, to("w1", Deed::Strike(strike)))]);
    let undisturbed = play("start", plan(Strike { after: usize::MAX, blow: Blow::Late })).requests;
    let (mut blows, mut both) = (0, 0);
    for (after, request) in undisturbed.iter().take_while(|request| request.at < SECOND * 2).enumerate() {
        for blow in Blow::ALL.into_iter().filter(|blow| strikes(*blow, request)) {
            let what = format!("{blow:?} at request {after}, {}", request.what);
            let verdict = play(&what, plan(Strike { after, blow }));
            blows += 1;
            let created = |worker: &str| {
                verdict.history.entries().any(|(_, entry)| {
                    matches!(entry, Entry::Wrote { worker: by, call: "create", .. } if by == worker)
                })
            };
            both += usize::from(created("w1(1)") && created("w2(2)"));
        }
    }
    println!("start: {blows} blows, both create leases in {both}");
    assert!(both >= 3, "{both}");
}

/// How many unfinished leases each owner has at a time.
fn owned_at(verdict: &Verdict, time: Duration) -> BTreeMap<String, usize> {
    let mut owners = BTreeMap::new();
    for (_, entry) in verdict.history.entries().take_while(|(at, _)| *at <= time) {
        if let Entry::Wrote { row, .. } = entry {
            owners.insert(row.shard.clone(), row.owner.clone());
        }
    }
    let mut owned = BTreeMap::new();
    for owner in owners.into_values() {
        *owned.entry(owner.map(|owner| owner.to_string()).unwrap_or_default()).or_default() += 1;
    }
    owned
}

/// Twenty members fill one row and begin another; all leave again one by one, and only the last takes the rows along.
#[test]
fn a_fleet_that_outgrows_a_row_raises_their_number_and_the_last_member_deletes_them() {
    let left = THEN + SECOND * 10;
    let mut deeds: Vec<(Duration, Step)> =
        (1..20).map(|number| (left + SECOND * number, to(&format!("w{number}"), Deed::Leave))).collect();
    let newcomer = left + SECOND * 30;
    deeds.push((newcomer, Step::Start));
    deeds.push((newcomer + SECOND * 10, to("w20", Deed::Leave)));
    let mut plan = script(20, newcomer + SECOND * 15, &deeds);
    plan.shards = 40;
    let verdict = play("20 workers", plan);
    let ids: Vec<String> = (1..=21).flat_map(|n| ids_of(&verdict, &format!("w{n}({n})"))).collect();
    assert_eq!(ids.len(), 21);
    let in_row = |row: &str| ids[..20].iter().filter(|id| id.ends_with(row)).count();
    assert_eq!((in_row(":f0"), in_row(":f1")), (MEMBERS_PER_ROW, 20 - MEMBERS_PER_ROW));
    let owned = owned_at(&verdict, left);
    assert!(owned.len() == 20 && owned.values().all(|count| *count == 2), "everybody counts all: {owned:?}");
    let changes: Vec<(Duration, &'static str)> = verdict
        .history
        .entries()
        .filter_map(|(at, entry)| match entry {
            Entry::Said(text) => {
                let changes = ["Create", "Rows(2)", "DeleteEmpty"].into_iter();
                let found = changes
                    .into_iter()
                    .find(|change| text.ends_with(&format!("changes the fleet: {change}")));
                found.map(|change| (at, change))
            }
            _ => None,
        })
        .collect();
    let kinds: Vec<_> = changes.iter().map(|(_, change)| *change).collect();
    assert_eq!(kinds, ["Create", "Create", "Rows(2)", "DeleteEmpty", "DeleteEmpty"]);
    assert!(changes[3].0 > verdict.plan.storm, "nobody deletes a row while anybody lives");
    assert_eq!(
        owned_at(&verdict, newcomer + SECOND * 9).values().collect::<Vec<_>>(),
        [&20, &20],
        "balanced"
    );
    println!("20 members: {changes:?}; the newcomer is {}", ids[20]);
}

/// Each of these scripts would fail if the library made the mistake it is about.
#[test]
fn planted_bugs_break_a_promise_in_the_script_that_is_about_them() {
    let donor = Role { name: "leaving donor", workers: 2, cause: Cause::Departure, who: "w1" };
    let requests = donor.requests();
    let give = requests.iter().position(|request| request.what.starts_with("owner of")).unwrap();
    let lost = donor.plan(Strike { after: give, blow: Blow::AnswerLost });
    let freeze = |time| script(3, THEN + D * 4, &[(THEN, to("w1", Deed::Freeze(Frozen::LeaseSide, time)))]);
    let throttled = |time| {
        let deed = Deed::ThrottleFleetRows { reads: true, time };
        let mut plan =
            script(3, THEN + D * 4, &["w1", "w2", "w3"].map(|worker| (THEN, to(worker, deed.clone()))));
        plan.scenario = Scenario::TableOutages;
        plan
    };
    let mut carefree = freeze(D + SECOND * 5);
    carefree.conduct.checkpoints = Checkpoints::Never;
    let mut hasty = freeze(D * 7 / 10);
    hasty.scenario = Scenario::TableOutages;
    for (plant, plan, promises) in [
        (Plant::AdoptWithoutFence, lost, &[Promise::L1][..]),
        (Plant::DeliverUntilToldLost, carefree, &[Promise::L1]),
        (Plant::EvictEarly, hasty, &[Promise::B1, Promise::L1]),
        (Plant::CreditBlindTime, throttled(D * 2), &[Promise::B1]),
    ] {
        let breach = run(plan, Some(plant)).breach;
        println!("{}: {breach:?}", plant.name());
        assert!(breach.is_some_and(|breach| promises.contains(&breach.promise)), "{}", plant.name());
    }
}
