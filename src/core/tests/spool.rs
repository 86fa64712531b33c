//! A spool whose disk hangs: nobody serves what the core asks of its thread.

use super::*;
use crate::spool::Refused;
use crate::spool::worker::{Command, Reply, What};

const TIMEOUT: Duration = Duration::from_millis(800);

#[test]
fn while_a_disk_hangs_one_part_waits_for_it_and_the_others_fail_at_once() {
    for choice in [DriverChoice::IoUring, DriverChoice::Epoll] {
        let Ok((driver, _)) = Driver::probe(choice) else { continue };
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = upstream.local_addr().unwrap();
        always(upstream, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
        let text = format!("target: http://{at}/push\ntimeout: 800ms\nspool: {{dir: /nowhere}}\n");
        let (handle, commands) = Handle::unserved();
        let spool = SpoolStart { handle, found: Vec::new() };
        let core = Running::start_with(driver, parse("f", &text, []).unwrap(), at, Some(spool));

        let answered_in = |status: &str| {
            let begun = Instant::now();
            let answer = read(&mut core.push());
            assert!(answer.starts_with(status.as_bytes()), "{}", String::from_utf8_lossy(&answer));
            begun.elapsed()
        };
        assert!(answered_in("HTTP/1.1 500") >= TIMEOUT, "the first waits for the disk");
        for _ in 0..3 {
            let took = answered_in("HTTP/1.1 503");
            assert!(took < TIMEOUT / 2, "{took:?}");
        }
        assert_eq!((commands.len(), core.metrics.core(0).spool_failed.get()), (1, 4));

        // The disk is back. What was given up is not stored, and the next part is.
        let Ok(Command::Append(to, _, is_given_up)) = commands.try_recv() else { panic!("no part") };
        assert!(is_given_up.load(std::sync::atomic::Ordering::Relaxed));
        let reply =
            |to, result| core.post.post(Message::Spool(Box::new(Reply { to, what: What::Appended(result) })));
        reply(to, Err(Refused::Failed(io::ErrorKind::TimedOut.into())));
        let mut sender = core.push();
        let Ok(Command::Append(to, _, is_given_up)) = commands.recv_timeout(WAIT) else { panic!("no part") };
        assert!(!is_given_up.load(std::sync::atomic::Ordering::Relaxed));
        reply(to, Ok(StreamTotals::default()));
        assert!(read(&mut sender).starts_with(b"HTTP/1.1 200"));
        core.stop();
    }
}
