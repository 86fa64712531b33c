//! A script that crashes at each of its operations, and random scripts with failures.

use proptest::prelude::*;

use super::model::{LIMITS, Model, STREAMS, Step};
use crate::spool::StoreLimits;
use crate::spool::memory::{Fault, Random};

/// Appends, commits with and without a sync, removals and tidying, in about twenty segments.
fn script(seed: u64, length: usize) -> Vec<Step> {
    let mut random = Random(seed);
    let mut steps = Vec::new();
    for _ in 0..length {
        steps.push(match random.below(12) {
            0..5 => Step::Append(random.below(STREAMS), random.below(200)),
            5..7 => Step::Commit(true),
            7 => Step::Commit(false),
            8..10 => Step::Remove(random.below(STREAMS), 1 + random.below(4)),
            _ => Step::Tidy,
        });
    }
    // Some tenants are well again, one is not.
    steps.push(Step::Commit(true));
    steps.extend((1..STREAMS).map(|stream| Step::Remove(stream, usize::MAX)));
    steps.extend([Step::Commit(false), Step::Tidy, Step::Tidy, Step::Append(0, 50), Step::Tidy, Step::Tidy]);
    steps
}

/// Runs a script that crashes at an operation, then to its end. Returns how many operations it takes.
fn run(steps: &[Step], crash_at: Option<usize>, seed: u64) -> usize {
    let mut model = Model::new(LIMITS);
    model.disk.crash_at(crash_at);
    for step in steps {
        model.step(*step);
        if model.disk.is_down() {
            model.crash(seed);
            // And once more, as what was found has to stay.
            model.crash(seed ^ 1);
        }
    }
    let operations = model.disk.operations();
    model.tidy_all();
    model.step(Step::Commit(true));
    model.crash(0);
    operations
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
    for script_seed in [11, 12, 13] {
        let steps = script(script_seed, 90);
        let operations = run(&steps, None, 0);
        assert!(operations > 100, "{operations}");
        for crash_at in 0..operations {
            for seed in 0..8 {
                run(&steps, Some(crash_at), seed);
            }
        }
    }
}

/// What is found after it may not be durable, and yet the store goes on from there. Then the power fails.
#[test]
fn an_end_of_the_process_at_any_operation_loses_nothing_even_if_the_power_fails_later() {
    let steps = script(11, 90);
    let operations = run(&steps, None, 0);
    for (crash_at, later) in (0..operations).flat_map(|at| (0..8).map(move |later| (at, later))) {
        let mut model = Model::new(LIMITS);
        model.disk.crash_at(Some(crash_at));
        for step in &steps {
            model.step(*step);
            if model.disk.is_down() {
                model.end_process();
                model.disk.crash_at(Some(model.disk.operations() + later));
                (0..4).for_each(|_| model.step(Step::Tidy));
                model.crash((crash_at + later) as u64);
            }
        }
        model.crash(0);
        model.tidy_all();
    }
}

#[test]
fn a_crash_while_it_opens_loses_nothing() {
    for crash_at in 0..40 {
        let mut model = Model::new(LIMITS);
        script(5, 60).iter().for_each(|step| model.step(*step));
        model.disk.crash_at(Some(model.disk.operations() + crash_at));
        // It fails while it makes durable what it has found.
        drop(crate::spool::Store::open(model.disk.clone(), LIMITS));
        model.crash(u64::from(crash_at as u32));
        model.compare();
    }
}

#[test]
fn one_failure_at_any_operation_loses_nothing() {
    let steps = script(21, 80);
    let operations = run(&steps, None, 0);
    for fault in [Fault::Error, Fault::Torn] {
        for at in 0..operations {
            for seed in 0..3 {
                let mut model = Model::new(LIMITS);
                model.disk.fail(at, fault);
                steps.iter().for_each(|step| model.step(*step));
                model.step(Step::Commit(true));
                model.crash(seed);
                model.tidy_all();
                model.crash(0);
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![Just(Fault::Error), Just(Fault::Torn)];
    prop_oneof![
        8 => (0..STREAMS, 0..300_usize).prop_map(|(stream, bytes)| Step::Append(stream, bytes)),
        4 => any::<bool>().prop_map(Step::Commit),
        4 => (0..STREAMS, 0..6_usize).prop_map(|(stream, count)| Step::Remove(stream, count)),
        4 => Just(Step::Tidy),
        1 => (0..50_u64).prop_map(Step::Crash),
        1 => Just(Step::Restart),
        1 => (0..8_usize, fault).prop_map(|(skipped, fault)| Step::Fail(skipped, fault)),
        1 => (0..12_000_u64, 0..6_000_u64).prop_map(|(all, tenant)| Step::Limit(all, tenant)),
        1 => (0..600_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn a_store_holds_what_its_model_holds(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::new(StoreLimits { bytes_max: 8_000, ..LIMITS });
        steps.into_iter().for_each(|step| model.step(step));
        model.step(Step::Commit(true));
        model.crash(0);
        model.tidy_all();
    }
}
