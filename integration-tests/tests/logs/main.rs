//! What is logged: how much in peace, in which spans, that no record is in it, and that the operator's handbook knows
//! each line that asks for attention.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a broken expectation ends the test; figures are shown"
)]

mod capture;
mod handbook;
mod peace;
mod requests;
mod secrecy;
mod spans;
