//! Which connection has a place for one more request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::connection::{Connection, Endpoint};

/// The connections of a client.
#[derive(Debug)]
pub(super) struct Pool {
    per_connection: usize,
    connections: Mutex<Vec<(Endpoint, Arc<Connection>)>>,
}

impl Pool {
    pub(super) fn new(per_connection: usize) -> Self {
        Self { per_connection, connections: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Endpoint, Arc<Connection>)>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place on a connection to the endpoint: on one that has room, or on a new one, which the first request
    /// that gets there opens.
    pub(super) fn place(&self, endpoint: &Endpoint) -> Place {
        let mut connections = self.lock();
        // Who has a place on a connection that is gone keeps it; no one gets another.
        connections.retain(|(_, connection)| connection.takes_requests());
        let taken = connections
            .iter()
            .filter(|(to, _)| to == endpoint)
            .find_map(|(_, connection)| Place::take(connection, self.per_connection));
        taken.unwrap_or_else(|| {
            let connection = Arc::new(Connection::new(self.per_connection));
            connections.push((endpoint.clone(), Arc::clone(&connection)));
            connection.enter();
            Place(connection)
        })
    }

    pub(super) fn connections(&self) -> usize {
        self.lock().iter().filter(|(_, connection)| connection.takes_requests()).count()
    }
}

/// A place on a connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Connection>);

impl Place {
    /// Under the lock of the pool, so that nobody else takes the last one meanwhile.
    fn take(connection: &Arc<Connection>, most: usize) -> Option<Self> {
        (connection.requests() < connection.room().min(most)).then(|| {
            connection.enter();
            Self(Arc::clone(connection))
        })
    }

    pub(super) const fn connection(&self) -> &Arc<Connection> {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}
