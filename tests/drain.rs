//! A server that shuts down waits for the slowest request that its limits allow.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::{Duration, Instant};

use support::client::push_head;
use support::{Driver, Reply, Server, Upstream, body, eventually, series};

const TIMEOUT: Duration = Duration::from_secs(6);

/// How long senders and upstream take for each step. It is below the timeout by enough for a machine that is busy, and
/// five steps are longer than three timeouts and the grace together.
const STEP: Duration = Duration::from_millis(4_800);

/// Sends a request of one series slowly, and returns its status. The second half of its head follows after a step, its
/// body after another step and once `may_end` returns.
fn send(server: &Server, name: &str, begun: Instant, may_end: &dyn Fn()) -> u16 {
    let body = body(vec![series("a", name, 1.0)]);
    let head = push_head(body.len(), "");
    let (first, rest) = head.as_bytes().split_at(head.len() / 2);
    let until = |at: Duration| std::thread::sleep(at.saturating_sub(begun.elapsed()));
    let mut client = server.client();
    client.send(first);
    until(STEP);
    client.send(rest);
    until(2 * STEP);
    may_end();
    client.send(&body);
    client.response().status
}

fn drains(driver: Driver) {
    // The first is in flight alone. Meanwhile two others wait. They are merged, refused together, and taken one by one.
    let upstream = Upstream::start(|r| {
        let reply = if r.names().len() > 1 { Reply::new(400, "not together") } else { Reply::ok() };
        reply.after(STEP)
    });
    let settings = format!("timeout: {}s\n", TIMEOUT.as_secs());
    let mut server = Server::start(driver, upstream.address, &settings);
    let begun = Instant::now();
    let first_is_in_flight = || eventually("the first is in flight", || upstream.received().len() == 1);
    let send = |name, may_end: &dyn Fn()| send(&server, name, begun, may_end);
    let statuses = std::thread::scope(|scope| {
        let senders = [
            scope.spawn(|| send("first", &|| {})),
            scope.spawn(|| send("second", &first_is_in_flight)),
            scope.spawn(|| send("third", &first_is_in_flight)),
        ];
        eventually("all are connected", || server.metric("tenantry_connections_open", "") == 3.0);
        // The first half of each head is there a moment later.
        std::thread::sleep(Duration::from_millis(300));
        server.signal("TERM");
        senders.map(|sender| sender.join().unwrap())
    });
    assert_eq!(statuses, [200, 200, 200]);
    assert_eq!(server.wait(Duration::from_secs(20)).code(), Some(0));
    let mut series: Vec<_> = upstream.received().iter().map(|r| r.names().len()).collect();
    series.sort_unstable();
    assert_eq!(series, [1, 1, 1, 2], "they went together, and then alone");
    let least = 3 * TIMEOUT + Duration::from_secs(5);
    assert!(begun.elapsed() > least, "{:?}: shorter than three timeouts and the grace", begun.elapsed());
}

#[test]
fn a_slow_request_within_its_limits_is_answered_before_the_server_ends() {
    // In parallel, as they mostly wait.
    std::thread::scope(|scope| {
        Driver::all().into_iter().for_each(|driver| _ = scope.spawn(move || drains(driver)));
    });
}
