//! Runs an entry point of a fuzz target over the seeds checked in for it and over mutations of them. Included by the
//! tests of every crate that has fuzz targets.

use std::{fs, path::Path};

/// A small generator with a fixed seed, so that every run tries the same inputs.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.roll(4) {
            let place = self.roll(bytes.len() + 1);
            let byte = [0x00, 0x01, 0x7F, 0x80, 0xFF, b'0', b'9', self.roll(256) as u8][self.roll(8)];
            match self.roll(6) {
                0 => bytes.insert(place, byte),
                1 | 2 if place < bytes.len() => bytes[place] = byte,
                3 if place < bytes.len() => drop(bytes.remove(place)),
                4 => bytes.extend_from_within(place..),
                5 => {
                    let from = self.roll(other.len() + 1);
                    let to = (from + self.roll(32)).min(other.len());
                    bytes.splice(place..place, other[from..to].iter().copied());
                }
                _ => bytes.truncate(place),
            }
            bytes.truncate(4096);
        }
    }
}

/// Runs `entry` over `fuzz/seeds/<target>` of the crate that includes this, and over so many mutations of each seed.
pub(crate) fn run(target: &str, mutations: usize, entry: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 4, "seeds are checked in");
    let seeds: Vec<_> = paths.into_iter().map(|path| fs::read(path).unwrap()).collect();
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    for seed in &seeds {
        entry(seed);
        for _ in 0..mutations {
            let mut bytes = seed.clone();
            let other = dice.roll(seeds.len());
            dice.mutate(&mut bytes, &seeds[other]);
            entry(&bytes);
        }
    }
}
