//! The fuzz targets' entry points over their seeds and mutations of them.

use std::{fs, path::Path};

#[path = "../../fuzz/src/entry.rs"]
#[expect(unreachable_pub, reason = "the fuzz crate exports them")]
pub(crate) mod entry;

/// A small generator with a fixed seed, so that every run tries the same inputs.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.roll(4) {
            let place = self.roll(bytes.len() + 1);
            let byte = [0x00, 0x01, 0x7F, 0x80, 0xFF, self.roll(256) as u8][self.roll(6)];
            match self.roll(4) {
                0 => bytes.insert(place, byte),
                1 if place < bytes.len() => bytes[place] = byte,
                2 if place < bytes.len() => drop(bytes.remove(place)),
                3 => bytes.extend_from_within(place..),
                _ => bytes.truncate(place),
            }
            bytes.truncate(4096);
        }
    }
}

fn run(target: &str, entry: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 4, "seeds are checked in");
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for path in paths {
        let seed = fs::read(path).unwrap();
        entry(&seed);
        for _ in 0..500 {
            let mut bytes = seed.clone();
            dice.mutate(&mut bytes);
            entry(&bytes);
        }
    }
}

#[test]
fn deaggregation_keeps_its_laws_on_seeds_and_mutations() {
    run("deaggregate", entry::deaggregate);
}

#[test]
fn round_trips_keep_their_laws_on_seeds_and_mutations() {
    run("round_trip", entry::round_trip);
}
