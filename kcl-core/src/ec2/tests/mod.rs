mod course;
mod hook;
mod protocol;
mod sockets;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use kcl_local::clock::TokioClock;
use kcl_local::ec2::{Imds as Double, Message, Service as _};

use super::transport::{MetadataAnswer, MetadataRequest, MetadataTransport, TransportError};

const SECOND: Duration = Duration::from_secs(1);
const TARGET: &str = "autoscaling/target-lifecycle-state";

/// When virtual time begins.
fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH + SECOND * 1_700_000_000
}

/// The double, without sockets: it works under a paused clock.
#[derive(Clone, Debug)]
struct Wire {
    double: Double,
    is_cut: Arc<AtomicBool>,
}

impl Wire {
    fn new() -> Self {
        Self { double: Double::new(Arc::new(TokioClock::new(epoch()))), is_cut: Arc::default() }
    }
}

#[async_trait]
impl MetadataTransport for Wire {
    async fn call(&self, request: MetadataRequest) -> Result<MetadataAnswer, TransportError> {
        if self.is_cut.load(Ordering::Relaxed) {
            return Err(TransportError::NoConnection("refused".to_owned()));
        }
        let (name, value) = request.header;
        let message = Message {
            method: request.method.to_owned(),
            path: request.path,
            headers: [(name.to_owned(), value)].into(),
            ..Message::default()
        };
        match self.double.answer(&message) {
            Some(answer) => Ok(MetadataAnswer { status: answer.status, body: answer.body }),
            None => pending().await,
        }
    }
}
