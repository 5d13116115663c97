//! Faults of event streams, frame by frame.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_smithy_types::body::{Error as BodyError, SdkBody};
use bytes::{Buf, Bytes, BytesMut};
use hyper::body::{Body, Frame};
use tokio::time::{Instant, Sleep};

use super::OpenStream;
use crate::error::ApiError;
use crate::event_stream::exception_frame;

/// When a fault befalls an event stream. The first frame is the `initial-response`, which the SDK
/// waits for before it gives the stream to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// Once so many frames have passed; 0 strikes before the first.
    AfterFrames(u64),
    /// So long after the head of the answer.
    After(Duration),
    /// In place of the end of the stream.
    AtEnd,
}

/// What happens to an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamFault {
    /// Nothing comes any more, not even the end. The connection stays open, and what the service
    /// sends stays unread.
    BlackHole,
    /// The body breaks off with an error.
    Reset,
    /// The stream ends without an error.
    End,
    /// The service breaks the stream off; [`errors`](super::errors) has those that Kinesis knows.
    Exception(ApiError),
    /// Each frame from then on is held back this long before the next is read; at the end, the end.
    Delay(Duration),
    /// Half of the next frame comes, and then the end of the body. Without effect at the end.
    Truncate,
    /// The next frame comes with a wrong byte, so that its checksum fails. Without effect at the end.
    Corrupt,
}

/// A fault that waits for its moment.
#[derive(Debug)]
struct Pending {
    when: When,
    fault: StreamFault,
    is_spent: bool,
}

/// The body of an event stream on its way through the fault layer.
pub(super) struct FaultyBody {
    inner: SdkBody,
    faults: Vec<Pending>,
    opened: Instant,
    /// Bytes that make no whole frame yet.
    partial: BytesMut,
    frames: VecDeque<Bytes>,
    /// The frame that comes next, or the end, and from when on.
    held: Option<(Option<Bytes>, Instant)>,
    passed: u64,
    timer: Option<Pin<Box<Sleep>>>,
    /// Counts the stream as open.
    open: Option<OpenStream>,
}

impl FaultyBody {
    pub(super) fn new(inner: SdkBody, faults: Vec<(When, StreamFault)>, open: OpenStream) -> Self {
        let faults = faults.into_iter();
        Self {
            inner,
            faults: faults.map(|(when, fault)| Pending { when, fault, is_spent: false }).collect(),
            opened: Instant::now(),
            partial: BytesMut::new(),
            frames: VecDeque::new(),
            held: None,
            passed: 0,
            timer: None,
            open: Some(open),
        }
    }

    /// The faults whose moment has come.
    fn due(&mut self, now: Instant, at_end: bool) -> impl Iterator<Item = &mut Pending> {
        let (opened, passed) = (self.opened, self.passed);
        self.faults.iter_mut().filter(move |pending| {
            let has_come = match pending.when {
                When::AfterFrames(count) => passed >= count,
                When::After(delay) => now >= opened + delay,
                When::AtEnd => at_end,
            };
            has_come && !pending.is_spent
        })
    }

    /// What breaks the stream off at this moment, if anything does.
    fn stroke(&mut self, now: Instant, at_end: bool) -> Option<StreamFault> {
        let breaks_off = |fault: &StreamFault| match fault {
            StreamFault::BlackHole | StreamFault::Reset | StreamFault::End | StreamFault::Exception(_) => {
                true
            }
            StreamFault::Delay(_) | StreamFault::Truncate | StreamFault::Corrupt => false,
        };
        self.due(now, at_end).map(|pending| &pending.fault).find(|fault| breaks_off(fault)).cloned()
    }

    /// Polls for the next whole frame of the service. What is left over at the end comes as it is.
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.partial.extend_from_slice(&data);
                    }
                    // A frame begins with its length, which counts itself.
                    while let Some(mut length) = self.partial.get(..4) {
                        let length = length.get_u32() as usize;
                        if length < 4 || self.partial.len() < length {
                            break;
                        }
                        self.frames.push_back(self.partial.split_to(length).freeze());
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None if self.partial.is_empty() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Ok(mem::take(&mut self.partial).freeze()))),
            }
        }
    }

    /// Passes on what comes, of a stream that suffers nothing.
    fn pass(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if next.is_none() {
            self.end();
        }
        Poll::Ready(next)
    }

    /// Waits for the moment, or for that of a fault if it comes before.
    fn poll_until(&mut self, moment: Option<Instant>, now: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let strikes = self.faults.iter().filter_map(|pending| match pending.when {
            When::After(delay) => Some(self.opened + delay),
            When::AfterFrames(_) | When::AtEnd => None,
        });
        let next = strikes.chain(moment).filter(|moment| *moment > now).min();
        let Some(next) = next else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
        if timer.deadline() != next {
            timer.as_mut().reset(next);
        }
        timer.as_mut().poll(cx)
    }

    fn end(&mut self) {
        self.open = None;
        self.inner = SdkBody::empty();
        self.held = None;
    }

    /// Damages a frame that is about to pass, as the faults demand. It may be the last one then.
    fn damage(&mut self, frame: Bytes, now: Instant) -> Bytes {
        let damage = self.due(now, false).find_map(|pending| match pending.fault {
            StreamFault::Truncate | StreamFault::Corrupt => {
                pending.is_spent = true;
                Some(pending.fault.clone())
            }
            _ => None,
        });
        self.passed += 1;
        match damage {
            Some(StreamFault::Truncate) => {
                self.end();
                frame.slice(..frame.len() / 2)
            }
            Some(StreamFault::Corrupt) => {
                let mut bytes = BytesMut::from(frame);
                if let Some(last) = bytes.last_mut() {
                    *last = !*last;
                }
                bytes.freeze()
            }
            _ => frame,
        }
    }
}

impl Body for FaultyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.faults.is_empty() {
            return this.pass(cx);
        }
        loop {
            if this.open.is_none() {
                return Poll::Ready(None);
            }
            let now = Instant::now();
            let at_end = matches!(this.held, Some((None, _)));
            match this.stroke(now, at_end) {
                Some(StreamFault::BlackHole) => return Poll::Pending,
                Some(StreamFault::Reset) => {
                    this.end();
                    return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionReset).into())));
                }
                Some(StreamFault::Exception(error)) => {
                    this.end();
                    return Poll::Ready(Some(Ok(Frame::data(exception_frame(&error)))));
                }
                Some(_) => {
                    this.end();
                    return Poll::Ready(None);
                }
                None => {}
            }
            match this.held.take() {
                Some((next, from)) if from <= now => {
                    let Some(frame) = next else {
                        this.end();
                        return Poll::Ready(None);
                    };
                    return Poll::Ready(Some(Ok(Frame::data(this.damage(frame, now)))));
                }
                Some((next, from)) => {
                    this.held = Some((next, from));
                    ready!(this.poll_until(Some(from), now, cx));
                }
                None => match this.poll_inner(cx).map(Option::transpose) {
                    Poll::Ready(Err(error)) => {
                        this.end();
                        return Poll::Ready(Some(Err(error)));
                    }
                    Poll::Ready(Ok(next)) => {
                        let delays = this.due(now, next.is_none()).map(|pending| match pending.fault {
                            StreamFault::Delay(by) => by,
                            _ => Duration::ZERO,
                        });
                        let delay = delays.sum::<Duration>();
                        this.held = Some((next, now + delay));
                    }
                    Poll::Pending => ready!(this.poll_until(None, now, cx)),
                },
            }
        }
    }
}
