use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use super::*;

/// Uses the CPU until `stop` is set.
#[inline(never)]
fn spin_for_the_profile(stop: &AtomicBool) -> u64 {
    let mut n = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        n = std::hint::black_box(n.wrapping_mul(31).wrapping_add(7));
    }
    n
}

/// The samples of a thread.
fn of(profile: &Profile, name: &str) -> u64 {
    profile.stacks.iter().filter(|(thread, ..)| &*thread.name == name).map(|(.., count)| count).sum()
}

/// The tests share the process, and so the turn.
fn turn() -> Turn {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match Turn::take() {
            Some(turn) => return turn,
            None => assert!(Instant::now() < until, "another profile does not end"),
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_thread_that_works_is_found_with_its_function_and_one_that_sleeps_is_not() {
    let turn = turn();
    let stop = AtomicBool::new(false);
    let (wake, sleeps) = mpsc::channel::<()>();
    let (profile, symbols) = std::thread::scope(|scope| {
        let named = |name: &str| std::thread::Builder::new().name(name.into());
        named("spinner").spawn_scoped(scope, || spin_for_the_profile(&stop)).unwrap();
        named("sleeper").spawn_scoped(scope, move || sleeps.recv()).unwrap();
        // On a busy machine the thread gets little CPU time.
        let mut profile = sample(Duration::from_secs(1), &|| false).unwrap();
        for _ in 0..20 {
            if of(&profile, "spinner") >= 5 {
                break;
            }
            profile = sample(Duration::from_secs(2), &|| false).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        drop(wake);
        let symbols = symbols::resolve(&profile.stacks, &|| false).unwrap();
        (profile, symbols)
    });
    drop(turn);
    let samples = of(&profile, "spinner");
    assert!((5..=220).contains(&samples), "{samples}");
    assert_eq!(of(&profile, "sleeper"), 0);
    let whole = profile.stacks.iter().any(|(_, frames, _)| {
        let names: Vec<_> = frames
            .iter()
            .enumerate()
            .flat_map(|(depth, frame)| &symbols[&symbols::Address::of(depth, *frame)])
            .map(|symbol| symbol.name.as_str())
            .collect();
        // The function itself, and the one that the thread began with: the walk went to the end.
        names.iter().any(|name| name.contains("spin_for_the_profile"))
            && names.iter().any(|name| name.contains("thread_start"))
    });
    assert!(whole, "{symbols:#?}");
}

#[test]
fn a_client_that_leaves_ends_a_profile_and_its_turn() {
    let begun = Instant::now();
    let taken = take(turn(), Duration::from_secs(300), Format::Pprof, &|| true);
    assert!(matches!(taken, Err(Failure::Cancelled)), "{taken:?}");
    assert!(begun.elapsed() < Duration::from_secs(100));
    drop(turn());
}

#[test]
fn two_profiles_are_not_taken_at_once() {
    let turn = turn();
    // The one that is refused leaves the other one alone.
    assert!(Turn::take().is_none() && Turn::take().is_none());
    drop(turn);
}
