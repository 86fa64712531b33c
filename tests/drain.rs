//! A server that leaves waits for the slowest request that its limits allow.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use std::time::{Duration, Instant};

use support::client::push_head;
use support::{Driver, Reply, Server, Upstream, body, series};

const TIMEOUT: Duration = Duration::from_secs(4);

/// What everybody takes over each step: less than the timeout, but not by much.
const STEP: Duration = Duration::from_millis(3_700);

/// A request of one series, and when, from the start on, its body is sent. The rest of its head is sent after a step.
struct Sender {
    name: &'static str,
    body_at: Duration,
}

/// Sends a request as slowly as that, and returns its status.
fn send(server: &Server, sender: &Sender, begun: Instant) -> u16 {
    let body = body(vec![series("a", sender.name, 1.0)]);
    let head = push_head(body.len(), "");
    let (first, rest) = head.as_bytes().split_at(head.len() / 2);
    let until = |at: Duration| std::thread::sleep(at.saturating_sub(begun.elapsed()));
    let mut client = server.client();
    client.send(first);
    until(STEP);
    client.send(rest);
    until(sender.body_at);
    client.send(&body);
    client.response().status
}

fn drains(driver: Driver) {
    // The first alone is under way; meanwhile two others wait, are merged, refused together, and taken one by one.
    let upstream = Upstream::start(|r| {
        let reply = if r.names().len() > 1 { Reply::new(400, "not together") } else { Reply::ok() };
        reply.after(STEP)
    });
    let settings = format!("timeout: {}s\n", TIMEOUT.as_secs());
    let mut server = Server::start(driver, upstream.address, &settings);
    let begun = Instant::now();
    let senders = [
        Sender { name: "first", body_at: 2 * STEP - Duration::from_millis(100) },
        Sender { name: "second", body_at: 2 * STEP },
        Sender { name: "third", body_at: 2 * STEP },
    ];
    let statuses = std::thread::scope(|scope| {
        let under_way: Vec<_> =
            senders.iter().map(|sender| scope.spawn(|| send(&server, sender, begun))).collect();
        std::thread::sleep(Duration::from_millis(300));
        server.signal("TERM");
        under_way.into_iter().map(|sender| sender.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(statuses, [200, 200, 200]);
    assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(0));
    let mut series: Vec<_> = upstream.received().iter().map(|r| r.names().len()).collect();
    series.sort_unstable();
    assert_eq!(series, [1, 1, 1, 2], "they went together, and then alone");
    let least = 3 * TIMEOUT + Duration::from_secs(5);
    assert!(begun.elapsed() > least, "{:?}: it took long enough", begun.elapsed());
}

#[test]
fn what_is_slow_within_its_limits_has_its_answer_before_the_end() {
    // Beside each other, as they mostly wait.
    std::thread::scope(|scope| {
        Driver::all().into_iter().for_each(|driver| _ = scope.spawn(move || drains(driver)));
    });
}
