use proptest::prelude::*;

use super::*;
use crate::model::Checkpoint;

fn worker(number: usize) -> WorkerId {
    format!("w{number:03}").into()
}

fn member(state: MemberState) -> PlacementMember {
    PlacementMember {
        state,
        lively: true,
        leases: 0,
        load: 0,
        cpu: None,
        limits: MemberLimits::default(),
        known_for: Duration::from_secs(60),
    }
}

/// What a lease is like at the moment.
#[derive(Clone, Debug)]
struct Row {
    lease: Lease,
    owner: Option<WorkerId>,
    gone: bool,
    weight: u64,
    given_ago: Duration,
    moves: u32,
}

#[derive(Clone, Debug, Default)]
struct Fleet {
    members: BTreeMap<WorkerId, PlacementMember>,
    rows: Vec<Row>,
    moves: usize,
}

impl Fleet {
    fn of(states: &[MemberState]) -> Self {
        let members = states.iter().enumerate().map(|(n, state)| (worker(n), member(*state))).collect();
        Self { members, ..Self::default() }
    }

    fn lease(&mut self, owner: Option<usize>) -> &mut Row {
        let shard: ShardId = format!("shardId-{:012}", self.rows.len()).into();
        let lease = Lease::new(shard, Checkpoint::TrimHorizon);
        let given_ago = Duration::from_secs(1_000 - self.rows.len() as u64 % 1_000);
        self.rows.push(Row { lease, owner: owner.map(worker), gone: false, weight: 0, given_ago, moves: 0 });
        self.rows.last_mut().unwrap()
    }

    fn leases(&mut self, count: usize, owner: Option<usize>) {
        for _ in 0..count {
            self.lease(owner);
        }
    }

    fn views(&self, me: &WorkerId) -> Vec<PlacementLease<'_>> {
        let view = |row: &'_ Row| {
            let holder = match &row.owner {
                None => Holder::Free,
                Some(_) if row.gone => Holder::Gone(Box::leak(Box::new(row.owner.clone().unwrap()))),
                Some(owner) => Holder::Member(Box::leak(Box::new(owner.clone()))),
            };
            let mine = row.owner.as_ref() == Some(me);
            PlacementLease {
                lease: Box::leak(Box::new(row.lease.clone())),
                holder,
                orphan_for: (row.owner.is_none() || row.gone).then_some(Duration::ZERO),
                rested: true,
                given_ago: mine.then_some(row.given_ago),
                moves: row.moves,
                weight: mine.then_some(row.weight),
                giving_to: None,
            }
        };
        self.rows.iter().map(view).collect()
    }

    fn plan_as(&self, me: usize, strategy: PlacementStrategy, max_moves: usize) -> Placement {
        let me = worker(me);
        let leases = self.views(&me);
        let members = &self.members;
        plan_placement(&PlacementInput {
            me: &me,
            members,
            leases: &leases,
            settled: true,
            strategy,
            max_moves,
        })
    }

    fn plan(&self, me: usize) -> Placement {
        self.plan_as(me, PlacementStrategy::Count, usize::MAX)
    }

    /// Carries out what everybody plans, from one and the same view; how much there was.
    fn round(&mut self, strategy: PlacementStrategy, max_moves: usize) -> usize {
        let plans: Vec<_> =
            (0..self.members.len()).map(|n| (worker(n), self.plan_as(n, strategy, max_moves))).collect();
        let mut done = 0;
        let mut touched = std::collections::BTreeSet::new();
        for (me, plan) in plans {
            for decision in plan.decisions {
                assert!(touched.insert(decision.shard.clone()), "{} is decided twice", decision.shard);
                let row = self.rows.iter_mut().find(|row| row.lease.shard == decision.shard).unwrap();
                done += 1;
                match decision.action {
                    PlacementAction::Take => {
                        assert!(row.owner.is_none() || row.gone);
                        row.owner = Some(me.clone());
                        row.gone = false;
                    }
                    PlacementAction::Give(to) => {
                        assert_eq!(row.owner.as_ref(), Some(&me));
                        assert_eq!(self.members[&to].state, Active);
                        row.owner = Some(to);
                        self.moves += 1;
                    }
                }
                row.given_ago = Duration::ZERO;
            }
        }
        for (id, member) in &mut self.members {
            member.load =
                self.rows.iter().filter(|row| row.owner.as_ref() == Some(id)).map(|row| row.weight).sum();
        }
        done
    }

    fn counts(&self) -> Vec<usize> {
        let of = |id: &WorkerId| self.rows.iter().filter(|row| row.owner.as_ref() == Some(id)).count();
        self.members.keys().map(of).collect()
    }
}

use MemberState::{Active, Draining, Observer};

#[test]
fn orphans_are_shared_out_and_nothing_moves_afterwards() {
    let mut fleet = Fleet::of(&[Active, Active, Active]);
    fleet.leases(10, None);
    assert_eq!(fleet.round(PlacementStrategy::Count, 1), 10);
    let mut counts = fleet.counts();
    counts.sort_unstable();
    assert_eq!(counts, [3, 3, 4]);
    assert_eq!(fleet.round(PlacementStrategy::Count, 16), 0);
}

#[test]
fn what_the_dead_leave_goes_to_those_with_least() {
    let mut fleet = Fleet::of(&[Active, Active]);
    fleet.leases(6, Some(0));
    fleet.leases(2, Some(1));
    for _ in 0..4 {
        let row = fleet.lease(Some(9));
        row.gone = true;
    }
    assert_eq!(fleet.round(PlacementStrategy::Count, 16), 4, "no lease moves that need not");
    assert_eq!(fleet.counts(), [6, 6]);
}

#[test]
fn a_draining_member_gives_everything_and_an_observer_gets_nothing() {
    let mut fleet = Fleet::of(&[Draining, Active, Observer, Active]);
    fleet.leases(8, Some(0));
    fleet.leases(1, Some(2));
    fleet.leases(3, None);
    let expected = fleet.plan(1).expected;
    assert!(expected.contains_key(&worker(0)), "{expected:?}");
    fleet.round(PlacementStrategy::Count, 1);
    assert_eq!(fleet.counts(), [0, 6, 0, 6]);
    let nobody = Fleet { members: Fleet::of(&[Draining, Observer]).members, ..fleet };
    assert!(nobody.plan(0).decisions.is_empty(), "nobody can receive");
}

#[test]
fn only_members_that_beat_are_given_anything() {
    let mut fleet = Fleet::of(&[Active, Active, Active]);
    fleet.members.get_mut(&worker(1)).unwrap().lively = false;
    fleet.leases(6, Some(0));
    fleet.leases(1, Some(1));
    while fleet.round(PlacementStrategy::Count, 16) > 0 {}
    assert_eq!(fleet.counts(), [3, 1, 3]);
}

#[test]
fn limits_are_kept() {
    let mut fleet = Fleet::of(&[Active, Active, Active]);
    fleet.members.get_mut(&worker(2)).unwrap().limits.leases = Some(2);
    fleet.leases(12, None);
    fleet.round(PlacementStrategy::Count, 16);
    assert_eq!(fleet.counts(), [5, 5, 2]);
    for id in 0..3 {
        fleet.members.get_mut(&worker(id)).unwrap().limits.leases = Some(2);
    }
    fleet.leases(12, None);
    assert_eq!(fleet.round(PlacementStrategy::Count, 16), 0, "full members keep what they have");
}

#[test]
fn leases_move_for_balance_only_in_a_settled_fleet_and_a_few_at_a_time() {
    let mut fleet = Fleet::of(&[Active, Active]);
    fleet.leases(20, Some(0));
    let me = worker(0);
    let leases = fleet.views(&me);
    let mut input = PlacementInput {
        me: &me,
        members: &fleet.members,
        leases: &leases,
        settled: false,
        strategy: PlacementStrategy::Count,
        max_moves: 3,
    };
    assert!(plan_placement(&input).decisions.is_empty());
    input.settled = true;
    let decisions = plan_placement(&input).decisions;
    assert_eq!(decisions.len(), 3);
    assert!(decisions.iter().all(|d| d.reason == PlacementReason::Imbalance { has: 20, theirs: 0 }));
    let to = worker(1);
    let mut leases = fleet.views(&me);
    for lease in &mut leases[..2] {
        lease.giving_to = Some(&to);
    }
    for lease in &mut leases[2..19] {
        lease.rested = false;
    }
    input.leases = &leases;
    let decisions = plan_placement(&input).decisions;
    assert_eq!(decisions.len(), 1, "two are under way, and one more may be");
    assert_eq!(decisions[0].shard, fleet.rows[19].lease.shard, "the only one that has rested");
}

#[test]
fn what_came_last_goes_first() {
    let mut fleet = Fleet::of(&[Active, Active]);
    fleet.leases(4, Some(0));
    fleet.rows[2].given_ago = Duration::from_secs(1);
    fleet.rows[0].given_ago = Duration::from_secs(2);
    let given: Vec<_> = fleet.plan(0).decisions.into_iter().map(|decision| decision.shard).collect();
    assert_eq!(given, [fleet.rows[2].lease.shard.clone(), fleet.rows[0].lease.shard.clone()]);
}

#[test]
fn children_that_wait_go_to_the_owner_of_their_parent_and_have_no_weight() {
    let mut fleet = Fleet::of(&[Active, Active]);
    fleet.leases(2, Some(1));
    fleet.leases(2, Some(0));
    let parent = fleet.rows[0].lease.shard.clone();
    for _ in 0..2 {
        fleet.lease(None).lease.parents = [parent.clone()].into();
    }
    let plan = fleet.plan(1);
    assert_eq!(plan.decisions.len(), 2);
    assert!(plan.decisions.iter().all(|decision| decision.reason == PlacementReason::WaitsForParent));
    assert!(fleet.plan(0).decisions.is_empty());
}

#[test]
fn what_is_left_over_goes_to_anybody() {
    let mut fleet = Fleet::of(&[Active, Active]);
    fleet.leases(3, Some(0));
    fleet.leases(1, None);
    let me = worker(0);
    let mut leases = fleet.views(&me);
    let plan = |leases: &[PlacementLease<'_>]| {
        let (members, strategy) = (&fleet.members, PlacementStrategy::Count);
        plan_placement(&PlacementInput { me: &me, members, leases, settled: false, strategy, max_moves: 1 })
    };
    assert!(plan(&leases).decisions.is_empty());
    leases[3].orphan_for = Some(LEFT_OVER);
    assert_eq!(plan(&leases).decisions[0].reason, PlacementReason::LeftOver);
}

#[test]
fn load_is_evened_out_and_then_rests() {
    let strategy = PlacementStrategy::Load { dead_band: 15, damping: 50 };
    let mut fleet = Fleet::of(&[Active, Active, Active]);
    for n in 0..60 {
        fleet.lease(Some(n % 3)).weight = if n % 3 == 0 { 5_000 } else { 1_000 };
    }
    fleet.round(PlacementStrategy::Count, 0);
    let mut rounds = 0;
    while fleet.round(strategy, 4) > 0 {
        rounds += 1;
        assert!(rounds < 50, "it does not come to rest");
    }
    let loads: Vec<u64> = fleet.members.values().map(|member| member.load).collect();
    let mean = loads.iter().sum::<u64>() / 3;
    assert!(loads.iter().all(|load| load.abs_diff(mean) * 100 <= mean * 25), "{loads:?}");
}

#[test]
fn a_member_whose_cpu_is_used_gets_no_load() {
    let strategy = PlacementStrategy::Load { dead_band: 10, damping: 100 };
    let mut fleet = Fleet::of(&[Active, Active]);
    for n in 0..10 {
        fleet.lease(Some(usize::from(n == 0))).weight = 10_000;
    }
    fleet.round(PlacementStrategy::Count, 0);
    fleet.members.get_mut(&worker(1)).unwrap().cpu = Some(900);
    assert!(fleet.plan_as(0, strategy, 9).decisions.is_empty());
    fleet.members.get_mut(&worker(1)).unwrap().cpu = Some(100);
    assert!(!fleet.plan_as(0, strategy, 9).decisions.is_empty());
}

#[test]
fn fifty_members_join_one_that_has_two_thousand_leases() {
    let mut fleet = Fleet::of(&[Active; 50]);
    fleet.leases(2_000, Some(0));
    while fleet.round(PlacementStrategy::Count, 500) > 0 {}
    assert_eq!(fleet.counts(), [40; 50]);
    assert_eq!(fleet.moves, 1_960, "no lease moves twice");
}

fn fleets() -> impl Strategy<Value = Fleet> {
    let state = prop_oneof![4 => Just(Active), 1 => Just(Draining), 1 => Just(Observer)];
    let member = (state, prop_oneof![3 => Just(None), 1 => (0..8u64).prop_map(Some)]);
    let members = prop::collection::vec(member, 1..8);
    let leases = prop::collection::vec((0..10usize, any::<bool>()), 0..50);
    (members, leases).prop_map(|(members, leases)| {
        let mut fleet = Fleet::of(&members.iter().map(|(state, _)| *state).collect::<Vec<_>>());
        for (n, (_, limit)) in members.iter().enumerate() {
            fleet.members.get_mut(&worker(n)).unwrap().limits.leases = *limit;
        }
        let count = members.len();
        for (owner, free) in leases {
            let row = fleet.lease((!free).then_some(owner));
            row.gone = !free && owner >= count;
        }
        fleet
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// `round` checks that no two workers decide about one lease.
    #[test]
    fn plans_fit_together_and_come_to_rest(fleet in fleets(), max_moves in 1..5usize) {
        let mut fleet = fleet;
        let mut rounds = 0;
        while fleet.round(PlacementStrategy::Count, max_moves) > 0 {
            rounds += 1;
            prop_assert!(rounds <= 60, "no rest: {:?}", fleet.counts());
        }
        let active: Vec<_> = fleet.members.iter().filter(|(_, m)| m.state == Active).collect();
        let counts: BTreeMap<_, _> = fleet.members.keys().cloned().zip(fleet.counts()).collect();
        for (id, member) in &active {
            let within = member.limits.leases.is_none_or(|most| {
                let kept =
                    fleet.rows.iter().filter(|r| r.owner.as_ref() == Some(*id) && r.given_ago > Duration::ZERO);
                counts[*id] as u64 <= most.max(kept.count() as u64)
            });
            prop_assert!(within, "{} has more than its limit", id);
        }
        let full = |id: &WorkerId, m: &PlacementMember| m.limits.leases.is_some_and(|most| counts[id] as u64 >= most);
        let open: Vec<_> = active.iter().filter(|(id, member)| !full(id, member)).map(|(id, _)| counts[*id]).collect();
        if let (Some(most), Some(least)) = (open.iter().max(), open.iter().min()) {
            prop_assert!(most - least <= 1, "{counts:?}");
            let homeless = fleet.rows.iter().filter(|row| {
                row.gone || row.owner.as_ref().is_none_or(|o| fleet.members[o].state != Active)
            });
            prop_assert_eq!(homeless.count(), 0);
        }
    }

    /// With enough room at once, every lease moves at most once, and only as many as must.
    #[test]
    fn no_more_leases_move_than_must(owned in prop::collection::vec(0..30usize, 2..8)) {
        let mut fleet = Fleet::of(&vec![Active; owned.len()]);
        for (owner, count) in owned.iter().enumerate() {
            fleet.leases(*count, Some(owner));
        }
        while fleet.round(PlacementStrategy::Count, usize::MAX) > 0 {}
        let total: usize = owned.iter().sum();
        let (floor, rest) = (total / owned.len(), total % owned.len());
        let mut sorted = owned.clone();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let least: usize = sorted
            .iter()
            .enumerate()
            .map(|(n, count)| count.saturating_sub(floor + usize::from(n < rest)))
            .sum();
        prop_assert_eq!(fleet.moves, least);
    }
}

#[test]
fn what_moved_twice_stays_and_what_moves_again_goes_to_whoever_came_last() {
    let mut fleet = Fleet::of(&[Active, Active]);
    fleet.leases(4, Some(0));
    fleet.rows[3].moves = 2;
    fleet.rows[3].given_ago = Duration::from_secs(1);
    fleet.rows[2].moves = 1;
    fleet.rows[2].given_ago = Duration::from_secs(2);
    let plan = fleet.plan(0);
    let given: Vec<_> = plan.decisions.iter().map(|decision| decision.shard.to_string()).collect();
    assert_eq!(given.len(), 2);
    assert!(given.contains(&"shardId-000000000002".to_owned()), "{given:?}");
    assert!(!given.contains(&"shardId-000000000003".to_owned()), "{given:?}");

    let mut fleet = Fleet::of(&[Draining, Active, Active]);
    fleet.leases(4, Some(0));
    (fleet.rows[1].moves, fleet.rows[2].moves) = (1, 2);
    fleet.members.get_mut(&worker(2)).unwrap().known_for = Duration::from_secs(5);
    let plan = fleet.plan(0);
    let to = |shard: usize| {
        let shard: ShardId = format!("shardId-{shard:012}").into();
        plan.decisions.iter().find(|decision| decision.shard == shard).map(|decision| decision.action.clone())
    };
    for (shard, receiver) in [(1, 2), (2, 2), (0, 1), (3, 1)] {
        assert_eq!(to(shard), Some(PlacementAction::Give(worker(receiver))), "{shard}");
    }
}
