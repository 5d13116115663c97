//! scratch
#![allow(clippy::print_stdout, reason = "a program's own output")]
use integration_tests::model::broken::Broken;
use integration_tests::model::fleet::{Config, Fleet};
use integration_tests::model::run::{explore, Limits};
fn main() {
    let lim = Limits { states: Some(60_000_000), threads: 2, ..Limits::SHORTEST };
    let s = Config::SMALL;
    for (name, c) in [
        ("small", s),
        ("moves", Config { moves: true, ..s }),
        ("moves lost", Config { moves: true, lost_beats: true, ..s }),
        ("moves rejoin", Config { moves: true, rejoin: true, ..s }),
        ("late1", Config { moves: true, late_writes: true, in_flight: 1, ..s }),
    ] {
        println!("{name}: {}", explore(Fleet::new(c), lim, &[]));
    }
    let _ = Broken::ALL;
}
