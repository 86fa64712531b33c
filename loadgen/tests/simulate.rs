//! Simulations: a seed does the same each time, and a thief is found.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod support;

use support::{loadgen, text};

/// What a seed's run prints, but for how long it took.
fn run(seed: u64, args: &[&str]) -> (bool, String) {
    let seed = seed.to_string();
    let output = loadgen(&[&["simulate", "--seed", &seed, "--length", "40s"], args].concat());
    let text = text(&output);
    let (before, rest) = text.split_once(" s in ").unwrap_or_else(|| panic!("{text}"));
    let (_, after) = rest.split_once("),").unwrap_or_else(|| panic!("{text}"));
    (output.status.success(), format!("{before}{after}"))
}

#[test]
fn a_seed_does_the_same_each_time() {
    for seed in 1..=8 {
        let (holds, first) = run(seed, &[]);
        assert!(holds, "{first}");
        assert_eq!(first, run(seed, &[]).1);
    }
}

#[test]
fn seeds_are_different() {
    assert_ne!(run(1, &[]).1.split_once(':').unwrap().1, run(5, &[]).1.split_once(':').unwrap().1);
}

/// In one of these seeds at least. With a spool a copy is lawful, and in a storm it is lawful that a tenant waits.
fn is_found(theft: &str, sign: &str, seeds: [u64; 3]) {
    let runs = seeds.map(|seed| run(seed, &["--steal", theft]));
    let found = runs.iter().any(|(holds, text)| !holds && text.contains(sign));
    assert!(found, "{runs:?}");
}

#[test]
fn thieves_are_found() {
    is_found("lose", "lost: ", [5, 9, 13]);
    is_found("misplace", "misplaced: ", [5, 9, 13]);
    is_found("duplicate", "duplicated: ", [5, 9, 13]);
    is_found("reorder", "reordered: ", [5, 9, 13]);
    is_found("starve", "starved: ", [3, 7, 11]);
}
