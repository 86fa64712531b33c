//! Answers of the API take turns with everything else.

use super::*;

/// Clients that ask at the same time.
const CLIENTS: usize = ADMIN_CONNECTIONS_MAX - 28;

/// Asks for a list that no other client asks for, without waiting for the answer.
fn ask_for_list(address: SocketAddr, client: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let target = format!("/api/v1/tenants?sort=errors&q=tenant&offset={client}");
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    stream
}

fn await_list(mut stream: TcpStream) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:.100}");
}

/// Without turns, a probe would wait for all answers to requests that have come before it.
#[test]
fn a_crowd_that_asks_for_lists_of_ten_thousand_tenants_does_not_delay_a_probe() {
    let (admin, address, _) = start_with(10_000);
    let mut waits: Vec<_> = (0..3)
        .map(|round| {
            let crowd: Vec<_> = (0..CLIENTS).map(|n| ask_for_list(address, round * CLIENTS + n)).collect();
            let begun = Instant::now();
            assert!(get(address, "/alive").starts_with("HTTP/1.1 200"));
            let alive = begun.elapsed();
            crowd.into_iter().for_each(await_list);
            (alive, begun.elapsed())
        })
        .collect();
    waits.sort_unstable();
    eprintln!("probes and crowds took {waits:?}");
    // The machine may have other things to do for a while.
    let (alive, crowd) = waits[1];
    assert!(alive < crowd / 2, "{alive:?} of {crowd:?}");
    admin.stop();
}
