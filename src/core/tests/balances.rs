//! Both sides of a balance of the ledger change side by side, so an audit hardly ever finds one off.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::egress::planted::looks;

/// Audits again and again while `work` runs, and returns how often two audits in a row found a balance off.
fn audits_during(metrics: &Metrics, work: impl FnOnce()) -> usize {
    let (over, found) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut auditor, mut was_off) = (Auditor::default(), false);
            while !over.load(Ordering::Relaxed) {
                auditor.audit(metrics);
                let is_off = auditor.unaccounted() > 0;
                found.fetch_add(usize::from(is_off && !was_off), Ordering::Relaxed);
                was_off = is_off;
            }
        });
        work();
        over.store(true, Ordering::Relaxed);
    });
    found.into_inner()
}

/// Text that no compression makes shorter by much.
fn noise(bytes: usize) -> String {
    let mut state = 1_u64;
    let mut letter = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'0' + u8::try_from(state % 64).unwrap())
    };
    (0..bytes).map(|_| letter()).collect()
}

/// The receipt of a part of sixteen megabytes takes milliseconds, and hundreds of audits.
#[test]
fn no_audit_finds_samples_missing_while_a_part_is_sent_to_its_home_core() {
    for choice in [DriverChoice::IoUring, DriverChoice::Epoll] {
        let Ok((driver, _)) = Driver::probe(choice) else { continue };
        // Nothing listens there.
        let at = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let text = format!("target: http://{at}/push\nlimits: {{body_bytes_max: 48Mi}}\n");
        let core = Running::start(driver, parse("f", &text, []).unwrap(), at);
        let noise = noise(16 << 20);
        let series = |tenant: &str| {
            let labels = [("__name__", "up"), ("__tenant__", tenant), ("noise", &*noise)];
            TimeSeries::new(&labels, &[(1, 1.0)])
        };
        let found = audits_during(&core.metrics, || {
            for _ in 0..10 {
                let answer = read(&mut core.push_all(vec![series("a"), series("b")]));
                assert!(answer.starts_with(b"HTTP/1.1 50"), "{}", answer.escape_ascii());
            }
        });
        assert_eq!(core.metrics.ledger().received, 20);
        eprintln!("{choice:?}: {found} of 20 parts were seen missing");
        // A core may be interrupted between two stores.
        assert!(found < 2, "{found}");
        core.stop();
    }
}

/// When a merged request has been answered, the outcome of each fragment leaves with all of them settled.
#[test]
fn a_merged_request_is_settled_at_once() {
    for choice in [DriverChoice::IoUring, DriverChoice::Epoll] {
        let Ok((driver, _)) = Driver::probe(choice) else { continue };
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = upstream.local_addr().unwrap();
        let core = Running::start(driver, plan("http", at, "first"), at);
        let tenant = format!("planted-look-{choice:?}");
        let first = core.push_of(&[&tenant]);
        let mut connection = accept(&upstream);
        let mut answer = || {
            assert!(read(&mut connection).starts_with(b"POST /push HTTP/1.1\r\n"));
            connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        };
        // These wait behind the first, and are merged.
        let others = [core.push_of(&[&tenant]), core.push_of(&[&tenant])];
        let until = Instant::now() + WAIT;
        while core.metrics.core(0).lanes_waiting.main() < 2 {
            assert!(Instant::now() < until, "they do not wait");
            std::thread::yield_now();
        }
        answer();
        answer();
        for mut sender in others.into_iter().chain([first]) {
            assert!(read(&mut sender).starts_with(b"HTTP/1.1 200"));
        }
        assert_eq!((core.metrics.core(0).merged_fragments.get(), looks(&tenant)), (2, vec![0; 3]));
        core.stop();
    }
}
