//! Permits under loom: `cargo test --release --lib --features loom shared::permits`.

use loom::thread;

use super::*;

fn permits(cores: usize, max: usize) -> Arc<Permits> {
    let slow_max = Arc::new(AtomicUsize::new(1));
    let queues = Queues { cores, upstreams: 1 };
    Arc::new(Permits::new(([127, 0, 0, 1], 1).into(), queues, max, slow_max, Arc::new(|_, _| ())))
}

fn of_core(core: usize) -> Claimant {
    Claimant { core, upstream: UpstreamId::main(Destination::Metrics), class: Class::Prompt }
}

/// A core that announces a want while a permit is released either takes the permit or is handed it: never neither,
/// never both.
#[test]
fn a_waiter_never_misses_a_released_permit() {
    loom::model(|| {
        let permits = permits(2, 1);
        assert!(permits.take());
        let releasing = {
            let permits = Arc::clone(&permits);
            thread::spawn(move || permits.release())
        };
        permits.announce(of_core(1), Instant::now());
        let got = permits.take();
        let handed = releasing.join().unwrap();
        assert!(got != (handed == Some(of_core(1))), "got {got}, handed {handed:?}");
        assert!(!permits.take(), "there is only one");
    });
}

/// Two cores want the only permit: the waiter is handed it once it is free, and it is neither lost nor duplicated.
#[test]
fn of_two_claimants_the_waiting_one_is_handed_the_permit() {
    // Three threads have too many interleavings to try. Two preemptions find the errors that missing fences cause.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    // Whose want is the oldest decides, and each run has to be the same as far as it goes.
    let since = Instant::now();
    model.check(move || {
        let permits = permits(3, 1);
        assert!(permits.take());
        let wanting = |core: usize| {
            let permits = Arc::clone(&permits);
            thread::spawn(move || {
                permits.announce(of_core(core), since);
                // The core that takes the permit withdraws its want and releases the permit for the other.
                permits.take().then(|| {
                    permits.withdraw(of_core(core));
                    permits.release()
                })
            })
        };
        let threads = [wanting(1), wanting(2)];
        let mut handed = vec![permits.release()];
        let mut waits = Vec::new();
        for (core, thread) in [1, 2].into_iter().zip(threads) {
            match thread.join().unwrap() {
                Some(next) => handed.push(next),
                None => waits.push(core),
            }
        }
        let handed: Vec<_> = handed.into_iter().flatten().map(|claimant| claimant.core).collect();
        assert!(waits.is_empty() || handed.iter().any(|core| waits.contains(core)), "{waits:?} {handed:?}");
        assert!(handed.len() <= 1, "one permit was handed out twice: {handed:?}");
        assert_eq!(permits.take(), handed.is_empty(), "one permit, neither lost nor duplicated");
    });
}

/// The want that a permit was taken again for may be withdrawn meanwhile. One that was announced in that time is not
/// missed.
#[test]
fn a_waiter_is_not_missed_beside_one_that_gives_up() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    let since = Instant::now();
    model.check(move || {
        let permits = permits(3, 1);
        assert!(permits.take());
        let gives_up = {
            let permits = Arc::clone(&permits);
            thread::spawn(move || {
                permits.announce(of_core(1), since);
                permits.withdraw(of_core(1));
            })
        };
        let waits = {
            let permits = Arc::clone(&permits);
            thread::spawn(move || {
                permits.announce(of_core(2), since);
                permits.take()
            })
        };
        let mut handed = permits.release();
        if handed == Some(of_core(1)) {
            // It came too late, and is given back.
            handed = permits.release();
        }
        gives_up.join().unwrap();
        let got = waits.join().unwrap();
        assert!(got != (handed == Some(of_core(2))), "got {got}, handed {handed:?}");
    });
}

/// In every interleaving of takes and releases, no more permits are taken than exist.
#[test]
fn no_more_permits_are_taken_than_exist() {
    loom::model(|| {
        let permits = permits(2, 1);
        let taken = Arc::new(AtomicUsize::new(0));
        let take_and_release = |permits: &Permits, taken: &AtomicUsize| {
            if permits.take() {
                assert_eq!(taken.fetch_add(1, Ordering::SeqCst), 0, "two are taken");
                taken.fetch_sub(1, Ordering::SeqCst);
                permits.release();
            }
        };
        let other = {
            let (permits, taken) = (Arc::clone(&permits), Arc::clone(&taken));
            thread::spawn(move || take_and_release(&permits, &taken))
        };
        take_and_release(&permits, &taken);
        other.join().unwrap();
        assert!(permits.take());
    });
}
