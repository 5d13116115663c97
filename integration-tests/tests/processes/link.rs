//! The way of one worker to DynamoDB, which can be cut.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How a way is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Connections are closed, new ones refused.
    Refused,
    /// Nothing passes, in either direction, and nothing says so. What was sent meanwhile arrives late, once the way
    /// is healed, even if nobody waits for an answer any more. New connections are accepted, as the loopback does
    /// that by itself, and are as silent.
    Silent,
}

/// A proxy on loopback. It ends with its owner.
#[derive(Debug)]
pub(crate) struct Link {
    address: SocketAddr,
    cut: watch::Sender<Option<Cut>>,
    _serving: JoinSet<()>,
}

impl Link {
    /// Leads to `target`.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, state) = watch::channel(None);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, target, state));
        Self { address, cut, _serving: serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn cut(&self, how: Cut) {
        self.cut.send_replace(Some(how));
    }

    pub(crate) fn heal(&self) {
        self.cut.send_replace(None);
    }
}

/// Completes when connections are refused; never if that cannot come any more.
async fn refused(state: &mut watch::Receiver<Option<Cut>>) {
    if state.wait_for(|cut| *cut == Some(Cut::Refused)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, mut state: watch::Receiver<Option<Cut>>) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    loop {
        let accepting = match listener.take() {
            Some(listener) => listener,
            // Somebody's outgoing connection may have the port for a moment.
            None => match TcpListener::bind(address).await {
                Ok(listener) => listener,
                Err(_) => {
                    sleep(Duration::from_millis(5)).await;
                    continue;
                }
            },
        };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = refused(&mut state) => break,
                accepted = accepting.accept() => if let Ok((client, _)) = accepted {
                    connections.spawn(connect(client, target, state.clone()));
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop((accepting, connections));
        if state.wait_for(|cut| *cut != Some(Cut::Refused)).await.is_err() {
            return;
        }
    }
}

async fn connect(client: TcpStream, target: SocketAddr, state: watch::Receiver<Option<Cut>>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    // What cannot be set costs time, not meaning.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::join!(pump(from_client, to_server, state.clone()), pump(from_server, to_client, state));
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<Option<Cut>>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        if state.wait_for(|cut| *cut != Some(Cut::Silent)).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
