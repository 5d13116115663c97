use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;

/// The latest failure that a start sat out, for the error if it runs out of time. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<Error>>>);

impl Trouble {
    pub(super) fn note(&self, error: impl Into<Error>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.into());
    }

    pub(super) fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
