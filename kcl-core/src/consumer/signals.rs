//! What reaches a consumer from outside: the fate of its lease and the orders of the supervisor.

use tokio::select;
use tokio::sync::watch;

use super::Order;
use crate::lease::{LeaseHandle, LossReason, Phase, ReleaseTo};

#[derive(Debug)]
pub(super) struct Signals {
    handle: LeaseHandle,
    orders: watch::Receiver<Order>,
}

impl Signals {
    pub(super) const fn new(handle: LeaseHandle, orders: watch::Receiver<Order>) -> Self {
        Self { handle, orders }
    }

    /// Why the lease is lost, if it is.
    pub(super) fn loss(&self) -> Option<LossReason> {
        match self.handle.standing().phase {
            Phase::Lost(reason) => Some(reason),
            Phase::Held | Phase::HandOver(_) => None,
        }
    }

    /// What is asked: a hand-over is an order to drain.
    pub(super) fn order(&self) -> Order {
        match self.handle.standing().phase {
            Phase::HandOver(_) => Order::Drain,
            Phase::Held | Phase::Lost(_) => *self.orders.borrow(),
        }
    }

    /// To whom the lease goes when it is given up.
    pub(super) fn successor(&self) -> ReleaseTo {
        match self.handle.standing().phase {
            Phase::HandOver(worker) => ReleaseTo::Worker(worker),
            Phase::Held | Phase::Lost(_) => ReleaseTo::Anybody,
        }
    }

    /// Waits until `condition` holds. Cancel-safe.
    async fn until(&mut self, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            select! {
                biased;
                () = self.handle.changed() => {}
                changed = self.orders.changed() => if changed.is_err() {
                    // No supervisor, no orders; only the lease can still change.
                    while !condition(self) {
                        self.handle.changed().await;
                    }
                },
            }
        }
    }

    /// Waits until the lease is lost or another order than `known` holds. Renewals do not count. Cancel-safe.
    pub(super) async fn interruption(&mut self, known: Order) {
        self.until(|signals| signals.handle.is_lost() || signals.order() != known).await;
    }

    /// As [`Signals::interruption`], and until the lease can be proven valid. Cancel-safe.
    pub(super) async fn interruption_or_proof(&mut self, known: Order) {
        self.until(|signals| {
            signals.handle.is_lost() || signals.order() != known || signals.handle.may_deliver()
        })
        .await;
    }

    /// Waits until the lease is lost. Cancel-safe.
    pub(super) async fn lost(&mut self) {
        self.until(|signals| signals.handle.is_lost()).await;
    }
}
