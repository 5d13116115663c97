//! The model of the fleet protocol within small bounds, and its compact rules against those production runs on.

use std::time::Duration;

use integration_tests::model::broken::Broken;
use integration_tests::model::fleet::{Config, Entry, Fleet, Presence, Sight, rules as compact};
use integration_tests::model::rows::{self, Rows};
use integration_tests::model::run::{Limits, explore};
use integration_tests::model::split::{self, Split};
use kcl_core::fleet::rules::{self, RefusedBeat};
use kcl_core::fleet::{FleetEntry, FleetRow, FleetRowKey, MemberState, member_id};
use kcl_core::lease::verb::{Verb, Verdict};
use kcl_core::lease::{AttemptToken, FleetChange, Lease, Write};
use kcl_core::model::Checkpoint;
use kcl_core::{Entropy, WorkerId};

const TICK: Duration = Duration::from_secs(1);

fn ticks(number: u8) -> Duration {
    TICK * u32::from(number)
}

fn member() -> WorkerId {
    member_id("w", Entropy::seeded(1).uuid(), FleetRowKey(0))
}

#[test]
fn the_rules_hold_within_small_bounds() {
    for config in
        [Config::SMALL, Config { moves: true, ..Config::SMALL }, Config { rows: 2, ..Config::SMALL }]
    {
        let report = explore(Fleet::new(config), Limits::SHORTEST, &[]);
        assert!(report.complete && report.is_clean(), "{config:?}: {report}");
    }
}

/// Two orders of the workers, two of their ids.
#[test]
fn symmetry_hides_nothing_within_small_bounds() {
    let config = Config { symmetry: false, ..Config::SMALL };
    let whole = explore(Fleet::new(config), Limits::SHORTEST, &[]);
    let folded = explore(Fleet::new(Config::SMALL), Limits::SHORTEST, &[]);
    assert!(whole.is_clean() && folded.is_clean());
    assert!(folded.states < whole.states && whole.states <= 4 * folded.states, "{folded} of {whole}");
}

#[test]
fn without_a_rule_a_property_falls() {
    for broken in [
        Broken::MarginTooSmall,
        Broken::MarginWithoutDrift,
        Broken::OtherDuration,
        Broken::NoEvidence,
        Broken::OldEvidence,
        Broken::EvidenceAskedBefore,
        Broken::OwnRowOnly,
        Broken::TakeUnconditionally,
        Broken::GiveWithoutStopping,
        Broken::SettleByReading,
        Broken::DeleteUnconditionally,
        Broken::RecognisedByCounter,
    ] {
        let model = Fleet::without(broken.config(), broken);
        let report = explore(model, Limits::SHORTEST, &[broken.property()]);
        assert!(report.counter_example(broken.property()).is_some(), "{}: {report}", broken.name());
    }
}

#[test]
fn children_start_after_all_their_parents() {
    for model in [Split::MERGE, Split::SPLIT] {
        let report = explore(model, Limits::SHORTEST, &[]);
        assert!(report.complete && report.is_clean(), "{model:?}: {report}");
    }
    for broken in split::Broken::ALL {
        let model = Split { broken: Some(broken), ..Split::MERGE };
        let report = explore(model, Limits::SHORTEST, &[broken.property()]);
        assert!(report.counter_example(broken.property()).is_some(), "{}: {report}", broken.name());
    }
}

#[test]
fn absence_is_looked_up_in_the_row_the_id_names() {
    let report = explore(Rows { broken: None }, Limits::SHORTEST, &[]);
    assert!(report.complete && report.is_clean(), "{report}");
    for broken in rows::Broken::ALL {
        let report = explore(Rows { broken: Some(broken) }, Limits::SHORTEST, &["ROW"]);
        assert!(report.counter_example("ROW").is_some(), "{}: {report}", broken.name());
    }
}

#[test]
fn validity_is_that_of_production() {
    for duration in 0..6 {
        for margin in 0..=duration {
            for age in 0..8 {
                let until = rules::valid_until(ticks(20), ticks(duration), ticks(margin));
                let valid = ticks(20 + age) < until;
                assert_eq!(compact::is_valid(age, duration - margin), valid, "{duration} {margin} {age}");
            }
        }
    }
}

/// Views in the course of ten ticks: in each none, one of the same number, one of a larger or one of a smaller.
#[test]
fn sightings_are_those_of_production() {
    for duration in [2, 3] {
        for course in 0..4_u32.pow(8) {
            let mut production: Option<rules::Sighting> = None;
            let (mut sight, mut number) = (Sight::default(), 10);
            for tick in 0..8 {
                sight.fresh = false;
                let seen = match course >> (2 * tick) & 3 {
                    0 => continue,
                    1 => number,
                    2 => {
                        number += 1;
                        sight = Sight::default();
                        number
                    }
                    _ => number - 1,
                };
                let now = ticks(tick as u8);
                match &mut production {
                    Some(sighting) => sighting.view(seen, ticks(duration), now),
                    // A first view shows what is in the entry, or an older copy: the model reads no copies.
                    None => production = Some(rules::Sighting::new(number, now)),
                }
                if seen == number || !sight.known {
                    sight = compact::view(sight, duration, 1);
                }
                let dead = production.is_some_and(|sighting| sighting.is_dead(ticks(duration)));
                let compact_dead = compact::is_dead(sight, duration);
                if duration == 3 {
                    assert_eq!(compact_dead, dead, "course {course:x}, tick {tick}");
                } else {
                    assert!(compact_dead || !dead, "course {course:x}, tick {tick}");
                }
            }
        }
    }
}

/// Each entry a member can have beside its number: absent, there, or `gone`.
fn entries() -> impl Iterator<Item = (Entry, u64, FleetRow)> {
    let states = [Presence::Absent, Presence::Live, Presence::Gone];
    states.into_iter().flat_map(|presence| (1..4).map(move |number| (presence, number))).map(
        |(presence, number)| {
            let mut row = FleetRow::default();
            let state = match presence {
                Presence::Gone => MemberState::Gone,
                _ => MemberState::Active,
            };
            if presence != Presence::Absent {
                row.workers.insert(member(), entry(number, state));
            }
            (Entry { presence, ..Entry::default() }, number, row)
        },
    )
}

fn entry(number: u64, state: MemberState) -> FleetEntry {
    let mut entry = FleetEntry::new(ticks(3), state);
    entry.heartbeat = number;
    entry
}

#[test]
fn entries_change_as_in_production() {
    let me = member();
    for (compact_entry, number, row) in entries() {
        for other in 0..5 {
            let entry = entry(other, MemberState::Active);
            let join = FleetChange::Join { worker: me.clone(), entry: entry.clone() };
            assert_eq!(compact::join_applies(compact_entry), join.apply_to(Some(&row)).is_ok());
            let beat = FleetChange::Beat { worker: me.clone(), entry };
            assert_eq!(
                compact::beat_applies(compact_entry, other > number),
                beat.apply_to(Some(&row)).is_ok()
            );
            let evict = FleetChange::Remove { worker: me.clone(), heartbeat: other };
            assert_eq!(
                compact::evict_applies(compact_entry, other == number),
                evict.apply_to(Some(&row)).is_ok()
            );
        }
        let evicted = rules::refused_beat(&me, Some(&row)) == RefusedBeat::Evicted;
        assert_eq!(compact::refusal_is_eviction(compact_entry), evicted);
        let gone = rules::presence(&me, Some(&row), ticks(5), ticks(5)) == rules::Presence::Gone;
        assert_eq!(compact::proves_gone(compact_entry), gone);
        let early = rules::presence(&me, Some(&row), ticks(4), ticks(5));
        assert_eq!(early, rules::Presence::MayLive, "a view asked for before proves nothing");
    }
}

/// Leases with each small counter and owner.
fn leases() -> Vec<Lease> {
    let owners = [None, Some(member()), Some(WorkerId::from("other"))];
    let all = owners.into_iter().flat_map(|owner| (0..3).map(move |counter| (owner.clone(), counter)));
    all.map(|(owner, counter)| {
        let mut lease = Lease::new("shard".into(), Checkpoint::TrimHorizon);
        (lease.owner, lease.counter) = (owner, counter);
        lease
    })
    .collect()
}

/// The writes of the model on a lease that reads like this, and the owner that each leaves behind.
fn writes(lease: &Lease, token: AttemptToken) -> Vec<(Verb, Option<WorkerId>)> {
    let [me, other]: [WorkerId; 2] = [member(), "other".into()];
    vec![
        (Verb::take(lease, &me, token), Some(me)),
        (Verb::renew(lease, token), lease.owner.clone()),
        (Verb::checkpoint(lease, Checkpoint::ShardEnd, token), lease.owner.clone()),
        (Verb::release(lease, None, Some(other.clone()), token), Some(other)),
        (Verb::release(lease, None, None, token), None),
    ]
}

/// The model keeps of a lease view, a hold and a message only whether the counter they know is that of the row: with
/// it the write applies, and afterwards none that knew the counter before does.
#[test]
fn leases_change_as_in_production() {
    let entropy = Entropy::seeded(2);
    for known in leases() {
        for (verb, owner) in writes(&known, AttemptToken(entropy.uuid())) {
            for row in leases() {
                let current = row.counter == known.counter && row.owner == known.owner;
                assert_eq!(verb.expect.holds_for(&row), current, "{verb:?} on {row:?}");
            }
            let after = verb.patch.apply_to(&known);
            assert_eq!(after.owner, owner, "{verb:?}");
            let late = writes(&known, AttemptToken(entropy.uuid()));
            assert!(late.iter().all(|(late, _)| !late.expect.holds_for(&after)), "{verb:?}");
        }
    }
}

/// R5, R10: a refused write is one's own if its token is in the row, and not for the owner and counter alone.
#[test]
fn writes_are_recognised_as_in_production() {
    let entropy = Entropy::seeded(3);
    for known in leases() {
        let tokens = [AttemptToken(entropy.uuid()), AttemptToken(entropy.uuid())];
        for (number, (verb, _)) in writes(&known, tokens[0]).into_iter().enumerate() {
            let row = verb.patch.apply_to(&known);
            let own = verb.judge(Write::Conflict(Some(row.clone())), true);
            assert!(matches!(own, Verdict::InForce(_)), "{verb:?}");
            let (twin, _) = writes(&known, tokens[1]).swap_remove(number);
            let other = twin.judge(Write::Conflict(Some(row)), true);
            assert!(matches!(other, Verdict::Refused(_)), "{twin:?}");
        }
    }
}
