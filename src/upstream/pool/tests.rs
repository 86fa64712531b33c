use std::io::Read;
use std::net::TcpListener;
use std::pin::Pin;
use std::task::Context;

use super::*;
use crate::exchange::fragment::Message;
use crate::exchange::mailbox::Mailbox;
use crate::limits::BACKOFF_AFTER_FAILURES;
use crate::model::Destination;
use crate::upstream::resolve::Resolution;

fn resolve_to(addresses: &Addresses, to: &[SocketAddr]) {
    addresses.store(Arc::new(Resolution { addresses: to.to_vec(), error: None }));
}

fn pool(addresses: &Addresses) -> Pool {
    let [(pool, _)] = pools(addresses, 4);
    pool
}

const SLOW: Standing = Standing { class: Class::Slow, strikes: 0, since: None };

/// The pools of several cores, all run by this thread, and their exchanges. At most `max` connections to an address.
fn pools<const N: usize>(addresses: &Addresses, max: usize) -> [(Pool, Rc<Exchange>); N] {
    let boxes: [_; N] = std::array::from_fn(|_| Mailbox::new().unwrap());
    let posts: Box<[_]> = boxes.iter().map(|(_, post, _)| post.clone()).collect();
    let carried = posts.clone();
    let directory = Directory::new(N, 1, max, 1, move |to: Claimant, handed| {
        carried[to.core].post(Message::Handed(to.upstream, Box::new(handed)));
    });
    let mut core = 0;
    boxes.map(|(mailbox, ..)| {
        let exchange = Rc::new(Exchange::new(core, mailbox, posts.clone()));
        core += 1;
        let limits = PoolLimits { age_max: None, idle_max: Duration::from_secs(60), blocking: Blocking::No };
        let deadlines = Deadlines::default();
        let pool = Pool::new(
            UpstreamId::main(Destination::Metrics),
            Arc::clone(addresses),
            Arc::clone(&directory),
            Rc::clone(&exchange),
            deadlines,
            limits,
            None,
        );
        (pool, exchange)
    })
}

/// Hands a core the messages that have come for it.
fn deliver(pool: &Pool, exchange: &Exchange) {
    while let Poll::Ready(message) = pin!(exchange.receive()).poll(&mut Context::from_waker(Waker::noop())) {
        match message {
            Message::Handed(_, handed) => pool.receive(*handed),
            Message::ConnectionWanted(address) => pool.hand_over_idle(address),
            other => panic!("{other:?}"),
        }
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

async fn open(pool: &Pool) -> Box<Connection> {
    let lease = pool.take(Standing::PROMPT, soon(), &[]).await.unwrap();
    let Leased::Connect(address, permit) = lease.what else { panic!("no permit") };
    pool.connect(address, permit, soon()).await.unwrap()
}

/// Whether a request that waits has been given something by now.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn is_open(lease: &Result<Lease, Failure>) -> bool {
    matches!(lease, Ok(Lease { what: Leased::Open(_), .. }))
}

fn on_a_core(test: impl Future<Output = ()>) {
    monoio::RuntimeBuilder::<monoio::LegacyDriver>::new().enable_timer().build().unwrap().block_on(test);
}

#[test]
fn what_was_kept_for_an_address_goes_with_it() {
    let (old, new) = (TcpListener::bind("127.0.0.1:0").unwrap(), "127.0.0.1:9".parse().unwrap());
    on_a_core(async {
        let addresses = Addresses::default();
        resolve_to(&addresses, &[old.local_addr().unwrap()]);
        let pool = pool(&addresses);
        let (idle, in_use) = (open(&pool).await, open(&pool).await);
        pool.put(idle);
        assert_eq!((pool.open(), pool.idle()), (2, 1));
        pool.tidy();
        assert_eq!((pool.open(), pool.idle()), (2, 1), "the address is still there");

        resolve_to(&addresses, &[new]);
        pool.tidy();
        assert_eq!((pool.open(), pool.idle(), pool.hosts.borrow().len()), (1, 0, 0));
        pool.put(in_use);
        assert_eq!((pool.open(), pool.idle(), pool.hosts.borrow().len()), (0, 0, 0));
        for _ in 0..2 {
            let mut peer = old.accept().unwrap().0;
            assert_eq!(peer.read(&mut [0]).unwrap(), 0, "closed");
        }
        // Nor does another core's wish bring it back.
        pool.hand_over_idle(old.local_addr().unwrap());
        assert_eq!(pool.hosts.borrow().len(), 0);
    });
}

#[test]
fn a_connection_that_comes_back_goes_to_who_waited_first_not_to_who_asks_next() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    on_a_core(async {
        let addresses = Addresses::default();
        resolve_to(&addresses, &[upstream.local_addr().unwrap()]);
        let [(pool, _)] = pools(&addresses, 1);
        let connection = open(&pool).await;
        let take = || Box::pin(pool.take(Standing::PROMPT, soon(), &[]));
        let (mut first, mut second, mut late) = (take(), take(), take());
        assert!(poll_once(first.as_mut()).is_pending() && poll_once(second.as_mut()).is_pending());
        pool.put(connection);
        // It has been given away, although the waiter has not looked yet.
        assert!(pool.idle() == 0 && poll_once(late.as_mut()).is_pending());
        let Poll::Ready(lease) = poll_once(first.as_mut()) else { panic!("the first has waited longest") };
        assert!(is_open(&lease) && poll_once(second.as_mut()).is_pending());
        // One that can't be used again leaves its place to the next.
        let Leased::Open(connection) = lease.unwrap().what else { panic!("an open one") };
        pool.discard(connection);
        let Poll::Ready(Ok(lease)) = poll_once(second.as_mut()) else { panic!("the second is next") };
        assert!(matches!(lease.what, Leased::Connect(..)) && poll_once(late.as_mut()).is_pending());
    });
}

/// Each time that a request of a tenant gave up, the tenant would go to the end of the queue.
#[test]
fn a_tenant_keeps_its_place_when_a_request_gives_up() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    on_a_core(async {
        let addresses = Addresses::default();
        resolve_to(&addresses, &[upstream.local_addr().unwrap()]);
        let [(pool, _)] = pools(&addresses, 1);
        let connection = open(&pool).await;
        let since = Instant::now();
        monoio::time::sleep(Duration::from_millis(2)).await;
        let mut other = Box::pin(pool.take(Standing::PROMPT, soon(), &[]));
        assert!(poll_once(other.as_mut()).is_pending());
        let standing = Standing { since: Some(since), ..Standing::PROMPT };
        let mut next = Box::pin(pool.take(standing, soon(), &[]));
        assert!(poll_once(next.as_mut()).is_pending());
        pool.put(connection);
        assert!(poll_once(other.as_mut()).is_pending() && poll_once(next.as_mut()).is_ready());
    });
}

#[test]
fn a_connection_goes_open_to_another_core_that_has_waited_longer() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    on_a_core(async {
        let addresses = Addresses::default();
        resolve_to(&addresses, &[upstream.local_addr().unwrap()]);
        let [(zero, exchange_zero), (one, exchange_one)] = pools(&addresses, 1);
        let connection = open(&zero).await;
        let mut theirs = Box::pin(one.take(Standing::PROMPT, soon(), &[]));
        assert!(poll_once(theirs.as_mut()).is_pending());
        monoio::time::sleep(Duration::from_millis(5)).await;
        let mut ours = Box::pin(zero.take(Standing::PROMPT, soon(), &[]));
        assert!(poll_once(ours.as_mut()).is_pending());
        monoio::time::sleep(Duration::from_millis(1)).await;
        deliver(&zero, &exchange_zero);
        zero.put(connection);
        deliver(&one, &exchange_one);
        let Poll::Ready(lease) = poll_once(theirs.as_mut()) else { panic!("core 1 has waited longer") };
        assert!(is_open(&lease) && poll_once(ours.as_mut()).is_pending());
        assert_eq!((zero.open(), one.open()), (0, 1));
        // Now it is the other core's turn. A connection that no request waits for stays idle until one does.
        let Leased::Open(connection) = lease.unwrap().what else { panic!("an open one") };
        one.put(connection);
        deliver(&zero, &exchange_zero);
        let Poll::Ready(Ok(Lease { what: Leased::Open(connection), .. })) = poll_once(ours.as_mut()) else {
            panic!("no other request waits")
        };
        zero.put(connection);
        assert_eq!((zero.idle(), one.idle()), (1, 0));
        let mut theirs = Box::pin(one.take(Standing::PROMPT, soon(), &[]));
        assert!(poll_once(theirs.as_mut()).is_pending());
        deliver(&zero, &exchange_zero);
        deliver(&one, &exchange_one);
        assert!(matches!(poll_once(theirs.as_mut()), Poll::Ready(lease) if is_open(&lease)));
        assert_eq!(upstream.incoming().take(1).count(), 1);
        upstream.set_nonblocking(true).unwrap();
        assert!(upstream.accept().is_err(), "it is one connection all the time");
    });
}

#[test]
fn slow_tenants_wait_past_their_share_and_let_others_pass() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    on_a_core(async {
        let addresses = Addresses::default();
        resolve_to(&addresses, &[upstream.local_addr().unwrap()]);
        let [(pool, _)] = pools(&addresses, 2);
        let slow = || Box::pin(pool.take(SLOW, soon(), &[]));
        let first = slow().await.unwrap();
        assert!(first.slow.is_some());
        let mut second = slow();
        assert!(poll_once(second.as_mut()).is_pending(), "one is their share");
        let connection = open(&pool).await;
        pool.put(connection);
        assert!(poll_once(second.as_mut()).is_pending() && pool.idle() == 1);
        let Lease { what: Leased::Connect(address, permit), slow } = first else { panic!("a permit") };
        drop(slow);
        let connection = pool.connect(address, permit, soon()).await.unwrap();
        pool.put(connection);
        let Poll::Ready(Ok(lease)) = poll_once(second.as_mut()) else { panic!("there is room again") };
        assert!(lease.slow.is_some());
    });
}

#[test]
fn an_address_that_fails_rests_and_the_other_takes_over() {
    let [dead, live] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let at = [&dead, &live].map(|listener| listener.local_addr().unwrap());
    drop(dead);
    on_a_core(async {
        let addresses = Addresses::default();
        resolve_to(&addresses, &at);
        let pool = pool(&addresses);
        let soon = Instant::now() + Duration::from_secs(5);
        let mut failures = 0;
        for _ in 0..50 {
            let Ok(Lease { what: Leased::Connect(address, permit), .. }) =
                pool.take(Standing::PROMPT, soon, &[]).await
            else {
                panic!("no permit")
            };
            match pool.connect(address, permit, soon).await {
                Ok(_) => assert!(!pool.worked(address, soon, Duration::from_secs(5)).0),
                Err(_) => {
                    failures += 1;
                    let backoff = pool.failed(address);
                    assert_eq!(backoff.is_some(), failures == BACKOFF_AFTER_FAILURES);
                }
            }
        }
        assert_eq!((failures, pool.in_backoff()), (BACKOFF_AFTER_FAILURES, 1));
        // The live one goes from DNS: the other is asked at once, although it is in backoff.
        resolve_to(&addresses, &at[..1]);
        let Ok(Lease { what: Leased::Connect(address, _), .. }) =
            pool.take(Standing::PROMPT, soon, &[]).await
        else {
            panic!("no permit")
        };
        assert_eq!(address, at[0]);
        resolve_to(&addresses, &at[1..]);
        pool.tidy();
        assert_eq!(pool.in_backoff(), 0);
    });
}

/// The TLS of a target whose certificates an authority of this name issues.
fn upstream_tls(authority: &str) -> Arc<UpstreamTls> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, testkit::pki::Authority::new(authority).unwrap().certificate()).unwrap();
    let text = format!(
        "target: https://h:1/\nauth: {{egress: {{tls_config: {{ca_bundle_file: '{}'}}}}}}\n",
        file.display()
    );
    let plan = crate::config::parse("f", &text, []).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    plan.tls.upstream.of(Destination::Metrics).clone().unwrap()
}

#[test]
fn a_connection_that_is_opened_during_a_reload_does_not_leave_the_old_settings_behind() {
    let (addresses, address) = (Addresses::default(), "127.0.0.1:9".parse().unwrap());
    resolve_to(&addresses, &[address]);
    let (pool, old, new) = (pool(&addresses), upstream_tls("old"), upstream_tls("new"));
    let verifier = |tls: &Arc<UpstreamTls>| Arc::as_ptr(pool.client_of(address, tls).config());
    pool.secure(Some(Arc::clone(&old)));
    let first = verifier(&old);
    assert_eq!(first, verifier(&old), "sessions can be resumed");
    pool.secure(Some(Arc::clone(&new)));
    // The TCP connection was being opened meanwhile.
    let late = pool.client_of(address, &old);
    assert_ne!(verifier(&new), Arc::as_ptr(late.config()));
}

#[test]
fn a_connection_of_old_settings_is_not_used_after_a_reload() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    on_a_core(async {
        let addresses = Addresses::default();
        resolve_to(&addresses, &[upstream.local_addr().unwrap()]);
        let [(pool, _)] = pools(&addresses, 1);
        let connection = open(&pool).await;
        let mut waits = Box::pin(pool.take(Standing::PROMPT, soon(), &[]));
        assert!(poll_once(waits.as_mut()).is_pending());
        pool.put(connection);
        pool.secure(Some(upstream_tls("new")));
        let Poll::Ready(lease) = poll_once(waits.as_mut()) else { panic!("it has come free") };
        assert!(!is_open(&lease), "it is plain HTTP, and the target speaks TLS now");
    });
}
