//! Answers that go on: frames of `application/vnd.amazon.eventstream`.
//!
//! A stream starts with an `initial-response` frame, as the JSON protocols demand, goes on with
//! events, and ends: with an exception frame if the service breaks it off.

use std::fmt::{self, Debug};
use std::task::{Context, Poll, ready};

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;

use crate::error::ApiError;
use crate::wire::JSON_1_1;

/// One event of a stream, as JSON.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) kind: &'static str,
    pub(crate) json: Bytes,
}

/// Where the events come from.
pub(crate) trait EventSource: Debug + Send + Sync + 'static {
    /// Polls for the next event. An error is the last thing that comes.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, ApiError>>>;
}

/// The frames of one answer. It takes an event from its source when it is asked for a frame, so
/// nothing piles up for a reader that does not read. Dropping it closes the source.
pub struct EventStream {
    source: Box<dyn EventSource>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    Events,
    End,
}

impl EventStream {
    pub(crate) fn new(source: impl EventSource) -> Self {
        Self { source: Box::new(source), phase: Phase::Start }
    }

    /// Polls for the next frame, whole; `None` is the end.
    ///
    /// It waits on tokio's clock and must be polled in a runtime that has one.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let frame = match self.phase {
            Phase::End => return Poll::Ready(None),
            Phase::Start => {
                self.phase = Phase::Events;
                event_frame("initial-response", Bytes::from_static(b"{}"))
            }
            Phase::Events => match ready!(self.source.poll_event(cx)) {
                None => {
                    self.phase = Phase::End;
                    return Poll::Ready(None);
                }
                Some(Ok(event)) => event_frame(event.kind, event.json),
                Some(Err(error)) => Err(error),
            },
        };
        Poll::Ready(Some(frame.unwrap_or_else(|error| {
            self.phase = Phase::End;
            exception_frame(&error)
        })))
    }

    /// Waits for the next frame, whole; `None` is the end.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next_frame(&mut self) -> Option<Bytes> {
        std::future::poll_fn(|cx| self.poll_frame(cx)).await
    }
}

impl Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("source", &self.source).field("phase", &self.phase).finish()
    }
}

fn event_frame(kind: &'static str, json: Bytes) -> Result<Bytes, ApiError> {
    let message = message("event", (":event-type", kind.to_owned()), json);
    encode(&message).map_err(|error| ApiError::server(format!("an event makes no frame: {error}")))
}

/// The frame by which a service breaks a stream off: the error's code is its type.
pub(crate) fn exception_frame(error: &ApiError) -> Bytes {
    let json = serde_json::json!({ "message": error.message }).to_string();
    let kind = if error.code == "InternalFailure" { "InternalFailureException" } else { &error.code };
    let message = message("exception", (":exception-type", kind.to_owned()), json.into());
    encode(&message).expect("the headers and the text of an error are far below the limits of a frame")
}

fn message(message_type: &'static str, (header, kind): (&'static str, String), json: Bytes) -> Message {
    Message::new(json)
        .add_header(text(":message-type", message_type.to_owned()))
        .add_header(text(header, kind))
        .add_header(text(":content-type", JSON_1_1.to_owned()))
}

fn text(name: &'static str, value: String) -> Header {
    Header::new(name, HeaderValue::String(value.into()))
}

fn encode(message: &Message) -> Result<Bytes, aws_smithy_eventstream::error::Error> {
    let mut frame = Vec::with_capacity(message.payload().len() + 160);
    write_message_to(message, &mut frame)?;
    Ok(frame.into())
}
