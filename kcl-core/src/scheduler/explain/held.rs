//! Shards whose consumer runs here.

use std::time::Duration;

use super::super::health::ProblemKind;
use super::super::report::{ShardSnapshot, Snapshot};
use super::{Activity, Cause, Explanation, Failing, READ_FAILURES, table};
use crate::consumer::{ReaderActivity, ReaderReport, ShardReport, Stage};
use crate::settings::Settings;
use crate::source::SourceErrorKind;

/// A callback is slow once it has used this part of its limit.
const SLOW_CALLBACK: u32 = 4;
/// A source is silent after this part of the stall time-out. Readers of quiet shards answer every few seconds.
const SILENT_SOURCE: u32 = 2;

/// How long nothing must have come for a shard to be idle.
const QUIET: Duration = Duration::from_secs(5);

pub(super) fn explain(to: &mut Explanation, snapshot: &Snapshot, held: &ShardSnapshot, settings: &Settings) {
    let report = &held.report;
    to.fallback.clone_from(&report.reader.fallback);
    (to.cause, to.activity, to.problem) = judge(&to.shard, snapshot, held, settings);
    if let ReaderActivity::HeldUp(budget) = report.reader.activity
        && !matches!(to.cause, Cause::BackPressured { .. })
    {
        to.held_up_by = Some(budget);
    }
}

type Verdict = (Cause, Activity, Option<ProblemKind>);

fn waits(cause: Cause) -> Verdict {
    (cause, Activity::Waiting, None)
}

fn fails(cause: Cause, problem: ProblemKind) -> Verdict {
    (cause, Activity::NotProcessing, Some(problem))
}

fn judge(
    shard: &crate::model::ShardId,
    snapshot: &Snapshot,
    held: &ShardSnapshot,
    settings: &Settings,
) -> Verdict {
    let report = &held.report;
    let for_long = |since| snapshot.at.saturating_duration_since(since);
    let failing = report.retry.as_ref().map(|retry| Failing::of(retry, snapshot));
    let running = report.callback.map(|callback| (callback.name, for_long(callback.since)));
    let is_slow = running.is_some_and(|(_, length)| length >= settings.callback_limit / SLOW_CALLBACK);
    let slow = is_slow.then_some(ProblemKind::CallbackSlow);
    match report.stage {
        Stage::Losing | Stage::Done => return waits(Cause::Losing),
        _ if !held.shows_life => return fails(Cause::ConsumerSilent, ProblemKind::ConsumerSilent),
        _ => {}
    }
    let activity = if is_slow { Activity::NotProcessing } else { Activity::Waiting };
    if let Some(to) = &held.handing_over_to {
        return (Cause::HandingOver { to: to.clone(), waits_for: running }, activity, slow);
    }
    if report.stage == Stage::Draining {
        return (Cause::Draining { waits_for: running }, activity, slow);
    }
    if let Some((name, running_for)) = running {
        let batch = report.batch.filter(|_| name == "process_records" || name == "dead_letter");
        let cause = Cause::InCallback { name, batch, running_for, limit: settings.callback_limit };
        return match failing {
            _ if is_slow => fails(cause, ProblemKind::CallbackSlow),
            // Whether this attempt succeeds is not known yet.
            Some(failing) => fails(Cause::Retrying { batch, failing }, ProblemKind::CallbackFailing),
            None => (cause, Activity::Delivering, None),
        };
    }
    match (report.stage, failing) {
        (Stage::WaitingForParents, failing) => {
            let problem = failing.as_ref().map(|_| ProblemKind::StepFailing);
            let activity = if problem.is_some() { Activity::NotProcessing } else { Activity::Waiting };
            let parents = snapshot.leases.get(shard).map(|lease| table::unfinished_parents(lease, snapshot));
            (Cause::WaitingForParents { parents: parents.unwrap_or_default(), failing }, activity, problem)
        }
        (Stage::Paused, _) => waits(Cause::Paused { paused_for: for_long(report.since) }),
        (Stage::Fenced, _) => {
            fails(Cause::Fenced { fenced_for: for_long(report.since) }, ProblemKind::Fenced)
        }
        (Stage::Ending, Some(failing)) => {
            fails(Cause::Ending { failing: Some(failing) }, ProblemKind::StepFailing)
        }
        (Stage::Ending, None) => waits(Cause::Ending { failing: None }),
        (Stage::Initializing | Stage::Retrying | Stage::Delivering, Some(failing)) => {
            fails(Cause::Retrying { batch: report.batch, failing }, ProblemKind::CallbackFailing)
        }
        (Stage::Initializing, None) => waits(Cause::Starting),
        // Between two callbacks.
        (Stage::Delivering | Stage::Retrying, None) => {
            (Cause::Reading { behind: behind(report) }, Activity::Delivering, None)
        }
        (Stage::Fetching, _) => fetching(snapshot, report, settings),
        (Stage::Draining | Stage::Losing | Stage::Done, _) => waits(Cause::Losing),
    }
}

fn behind(report: &ShardReport) -> Option<Duration> {
    report.millis_behind.map(Duration::from_millis)
}

/// A shard that has nothing for its processor: because there is nothing, or because something is wrong.
fn fetching(snapshot: &Snapshot, report: &ShardReport, settings: &Settings) -> Verdict {
    let reader = &report.reader;
    let for_long = |since| snapshot.at.saturating_duration_since(since);
    if let ReaderActivity::HeldUp(budget) = reader.activity {
        let (held_up_for, buffered_bytes) = (for_long(reader.since), report.buffered_bytes);
        return waits(Cause::BackPressured { budget, held_up_for, buffered_bytes });
    }
    if reader.activity == ReaderActivity::Asking
        && for_long(reader.since) >= settings.stall_timeout / SILENT_SOURCE
    {
        let (silent_for, limit) = (for_long(reader.since), settings.stall_timeout * 2);
        return fails(Cause::SourceSilent { silent_for, limit }, ProblemKind::SourceSilent);
    }
    if reader.failures > 0 {
        return failing_reader(snapshot, reader);
    }
    if let (Some((least, at)), Some(behind)) = (reader.least_behind, behind(report))
        && behind > Duration::from_millis(least)
        && for_long(at) >= settings.stall_timeout
    {
        let (least, growing_for) = (Duration::from_millis(least), for_long(at));
        return fails(Cause::LagGrows { behind, least, growing_for }, ProblemKind::LagGrows);
    }
    // What came last may have been delivered after the first quiet answer.
    let quiet_since = reader.quiet_since.map(|since| report.last_delivery.unwrap_or(since).max(since));
    match quiet_since.map(for_long) {
        // A pause between two records is no lack of traffic.
        Some(quiet_for) if quiet_for >= QUIET => (Cause::Idle { quiet_for }, Activity::Idle, None),
        None if reader.activity == ReaderActivity::Off => waits(Cause::Starting),
        _ => (Cause::Reading { behind: behind(report) }, Activity::Delivering, None),
    }
}

fn failing_reader(snapshot: &Snapshot, reader: &ReaderReport) -> Verdict {
    let until = match reader.activity {
        ReaderActivity::Resting { until } => Some(until),
        _ => None,
    };
    let failing = Failing {
        failures: reader.failures,
        failing_for: reader
            .failing_since
            .map_or(Duration::ZERO, |since| snapshot.at.saturating_duration_since(since)),
        next_attempt_in: until.map(|until| until.saturating_duration_since(snapshot.at)),
        error: reader.error.clone().unwrap_or_default(),
    };
    let passing = reader.failures < READ_FAILURES;
    let (cause, problem) = match reader.error_kind {
        Some(SourceErrorKind::Throttled) => (Cause::Throttled(failing), ProblemKind::Throttled),
        _ => (Cause::ReaderFailing(failing), ProblemKind::ReaderFailing),
    };
    if passing { waits(cause) } else { fails(cause, problem) }
}
