//! Requests to subscribe, answered by a stream of events.

use std::task::{Context, Poll};

use serde::Deserialize;

use crate::error::ApiError;
use crate::event_stream::{Event, EventSource, EventStream};
use crate::kinesis::errors::identifier;
use crate::kinesis::{ConsumerRef, Kinesis, Subscription};

use super::parse;
use super::records::{StartText, iterator_start, render_event};
use super::request::{required, unless_dry_run};

/// The operation that [`subscribe`] serves.
pub const SUBSCRIBE: &str = "SubscribeToShard";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SubscribeToShard {
    #[serde(rename = "ConsumerARN")]
    consumer_arn: Option<String>,
    shard_id: Option<String>,
    starting_position: Option<StartingPosition>,
    dry_run: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StartingPosition {
    r#type: Option<String>,
    sequence_number: Option<String>,
    timestamp: Option<f64>,
}

/// Serves `SubscribeToShard`: `body` is the JSON of the request.
///
/// # Errors
/// As [`handle`](super::handle).
pub fn subscribe(service: &Kinesis, body: &[u8]) -> Result<EventStream, ApiError> {
    let request: SubscribeToShard = parse(body)?;
    let consumer = required(request.consumer_arn.as_deref(), "consumerARN")?;
    let shard = required(request.shard_id.as_deref(), "shardId")?;
    identifier(shard, "shardId")?;
    let position = required(request.starting_position.as_ref(), "startingPosition")?;
    let start = StartText {
        member: "startingPosition.type",
        operation: SUBSCRIBE,
        kind: position.r#type.as_deref(),
        sequence_number: position.sequence_number.as_deref(),
        timestamp: position.timestamp,
    };
    let start = iterator_start(&start, shard)?;
    let veto = || unless_dry_run(request.dry_run, SUBSCRIBE);
    let subscription = service.subscribe_unless(&ConsumerRef::from(consumer), shard, &start, veto)?;
    Ok(EventStream::new(subscription))
}

impl EventSource for Subscription {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, ApiError>>> {
        self.poll_next(cx)
            .map_ok(|event| Event { kind: "SubscribeToShardEvent", json: render_event(&event).into() })
    }
}
