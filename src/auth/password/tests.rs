//! With real bcrypt hashes of a low cost.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

use super::*;

type Told = Receiver<(usize, Ticket, Verdict)>;

/// About a millisecond.
const COST: u32 = 4;

fn users(cost: u32, names: &[&str]) -> Users {
    let hash =
        |name: &str| PasswordHash::parse(&bcrypt::hash(format!("{name}'s password"), cost).unwrap()).unwrap();
    names.iter().map(|&name| (name.into(), hash(name))).collect()
}

fn start(users: Users, checks_max: usize, threads: usize) -> (Passwords, Told) {
    let (sender, told) = channel();
    let sender = Mutex::new(sender);
    let deliver = move |core, ticket, verdict| {
        let _ = sender.lock().unwrap().send((core, ticket, verdict));
    };
    (Passwords::start_with(users, Arc::new(deliver), checks_max, threads).unwrap(), told)
}

fn from(peer: &str) -> Caller {
    Caller { core: 3, peer: Some(peer.parse().unwrap()), now: SystemTime::UNIX_EPOCH }
}

fn check(passwords: &Passwords, user: &str, password: &str, peer: &str) -> Check {
    passwords.check(user, &Secret::new(password), &from(peer))
}

fn pending(check: Check) -> Ticket {
    match check {
        Check::Pending(ticket, _) => ticket,
        other => panic!("{other:?}"),
    }
}

/// Asks, and waits for the verdict if there is none yet.
fn settle(passwords: &Passwords, told: &Told, user: &str, password: &str) -> Verdict {
    match check(passwords, user, password, "10.0.0.1") {
        Check::Right(_) => Verdict::Right,
        Check::Wrong => Verdict::Wrong,
        Check::Busy => Verdict::Busy,
        Check::Pending(ticket, _) => loop {
            let (_, other, verdict) = told.recv_timeout(Duration::from_secs(60)).unwrap();
            if other == ticket {
                return verdict;
            }
        },
    }
}

#[test]
fn hashes_are_bcrypt_of_a_bearable_cost() {
    let good = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze";
    for version in ["$2a$", "$2b$", "$2y$"] {
        assert!(PasswordHash::parse(&good.replace("$2y$", version)).is_ok());
    }
    assert_eq!(PasswordHash::parse(&good.replace("$2y$", "$2x$")), Err(HashFault::Faulty));
    for (cost, fault) in [("03", 3), ("17", 17), ("31", 31), ("99", 99)] {
        assert_eq!(
            PasswordHash::parse(&good.replace("$10$", &format!("${cost}$"))),
            Err(HashFault::Cost(fault))
        );
    }
    for wrong in ["", "secret", "{SHA}abc", &good[..59], &format!("{good}x"), &good.replace("$2y$", "$2c$")] {
        let fault = PasswordHash::parse(wrong).unwrap_err();
        assert_eq!(fault, HashFault::NotBcrypt, "{wrong}");
        assert!(wrong.is_empty() || !fault.to_string().contains(wrong));
    }
    assert_eq!(format!("{:?}", PasswordHash::parse(good)), "Ok(***)");
}

#[test]
fn a_verdict_is_delivered_once_and_then_remembered() {
    let (passwords, told) = start(users(COST, &["alice", "bob"]), 16, 2);
    for (user, password, verdict) in [
        ("alice", "alice's password", Verdict::Right),
        ("bob", "bob's password", Verdict::Right),
        ("alice", "bob's password", Verdict::Wrong),
        ("alice", "", Verdict::Wrong),
        ("carol", "carol's password", Verdict::Wrong),
        ("", "", Verdict::Wrong),
    ] {
        let ticket = pending(check(&passwords, user, password, "10.0.0.1"));
        assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), (3, ticket, verdict), "{user}");
        let remembered = match verdict {
            Verdict::Right => Check::Right(user.into()),
            _ => Check::Wrong,
        };
        assert_eq!(check(&passwords, user, password, "10.0.0.2"), remembered, "{user}");
    }
    assert!(told.try_recv().is_err());
    assert_eq!(passwords.waiting(), 0);
}

#[test]
fn the_same_check_is_made_once_for_all_that_wait() {
    // No thread: nothing is taken from the queue.
    let (passwords, told) = start(users(COST, &["alice"]), 2, 0);
    let tickets: Vec<_> =
        (0..100).map(|_| pending(check(&passwords, "alice", "alice's password", "10.0.0.1"))).collect();
    assert_eq!(passwords.waiting(), 1);
    let shared = Arc::clone(&passwords.shared);
    let thread = std::thread::spawn(move || shared.work());
    let mut answered: Vec<_> =
        (0..100).map(|_| told.recv_timeout(Duration::from_secs(60)).unwrap()).collect();
    answered.sort_unstable_by_key(|(_, ticket, _)| ticket.0);
    let expected: Vec<_> = tickets.into_iter().map(|ticket| (3, ticket, Verdict::Right)).collect();
    assert_eq!(answered, expected);
    drop(passwords);
    thread.join().unwrap();
}

#[test]
fn waiters_of_one_check_are_bounded() {
    let (passwords, _told) = start(users(COST, &["alice"]), 2, 0);
    for _ in 0..PASSWORD_WAITERS_MAX {
        pending(check(&passwords, "alice", "x", "10.0.0.1"));
    }
    assert_eq!(check(&passwords, "alice", "x", "10.0.0.1"), Check::Busy);
}

/// A right password is found among any number of wrong ones for the same user, for others, and for unknown users, while
/// the queue is full all the time.
#[test]
fn a_flood_of_wrong_passwords_keeps_no_other_user_out() {
    const FLOODED: usize = 400;
    let (passwords, told) = start(users(COST, &["alice", "bob", "carol"]), 16, 1);
    let mut verdicts = HashMap::new();
    let mut most = 0;
    for n in 0..FLOODED {
        // From 50 addresses for bob, and from another 50 for users that do not exist.
        let peer = format!("10.0.{}.1", n % 50);
        for user in ["bob".to_owned(), format!("unknown-{n}")] {
            check(&passwords, &user, &format!("wrong-{n}"), &peer);
        }
        most = most.max(passwords.waiting());
        if n == FLOODED / 2 {
            // The first requests of two other users.
            for user in ["alice", "carol"] {
                let password = format!("{user}'s password");
                verdicts.insert(pending(check(&passwords, user, &password, "10.0.0.1")), None);
            }
        }
    }
    assert!(most >= 15, "the queue was full: {most}");
    let deadline = Instant::now() + Duration::from_secs(60);
    while verdicts.values().any(Option::is_none) {
        let (_, ticket, verdict) = told.recv_timeout(deadline - Instant::now()).unwrap();
        verdicts.entry(ticket).and_modify(|known| *known = Some(verdict));
    }
    assert!(verdicts.values().all(|verdict| *verdict == Some(Verdict::Right)), "{verdicts:?}");
    for user in ["alice", "carol"] {
        assert_eq!(
            check(&passwords, user, &format!("{user}'s password"), "192.168.0.1"),
            Check::Right(user.into()),
            "no number of wrong passwords pushes it out"
        );
    }
    assert!(passwords.shared.lock().wrong.order.len() <= PASSWORDS_WRONG_MAX);
}

/// While checks for one user wait, another user's check is among the next two.
#[test]
fn users_are_served_in_turn() {
    let (passwords, told) = start(users(COST, &["alice", "bob"]), 64, 0);
    for peer in 0..40 {
        pending(check(&passwords, "bob", &format!("wrong-{peer}"), &format!("10.0.0.{peer}")));
    }
    let ticket = pending(check(&passwords, "alice", "alice's password", "10.0.1.1"));
    let shared = Arc::clone(&passwords.shared);
    let thread = std::thread::spawn(move || shared.work());
    let first: Vec<_> = (0..2).map(|_| told.recv_timeout(Duration::from_secs(60)).unwrap()).collect();
    assert!(first.contains(&(3, ticket, Verdict::Right)), "{first:?}");
    drop(passwords);
    thread.join().unwrap();
}

#[test]
fn a_full_queue_refuses_and_tells_what_it_drops() {
    let (passwords, told) = start(users(COST, &["alice", "bob"]), 4, 0);
    let flood: Vec<_> =
        (0..4).map(|n| pending(check(&passwords, "bob", &format!("wrong-{n}"), "10.0.0.1"))).collect();
    assert_eq!(check(&passwords, "bob", "wrong-5", "10.0.0.1"), Check::Busy);
    pending(check(&passwords, "alice", "alice's password", "10.0.0.1"));
    assert_eq!(told.try_recv().unwrap(), (3, flood[3], Verdict::Busy));
    assert!(told.try_recv().is_err());
    // Peers of the same /64 count as one.
    let (passwords, _told) = start(users(COST, &["alice"]), 64, 0);
    for n in 0..PASSWORD_CHECKS_PER_PEER_MAX {
        pending(check(&passwords, "alice", &format!("wrong-{n}"), &format!("2001:db8::{n:x}")));
    }
    assert_eq!(check(&passwords, "alice", "x", "2001:db8::ffff"), Check::Busy);
    pending(check(&passwords, "alice", "x", "2001:db8:0:1::1"));
    for n in 0..PASSWORD_CHECKS_PER_PEER_MAX {
        pending(check(&passwords, "alice", &format!("other-{n}"), "10.0.0.1"));
    }
    assert_eq!(check(&passwords, "alice", "y", "::ffff:10.0.0.1"), Check::Busy, "the same address");
}

#[test]
fn checks_that_wait_are_told_when_the_users_are_replaced() {
    let (passwords, told) = start(users(COST, &["alice"]), 4, 0);
    let tickets = ["a", "b"].map(|password| pending(check(&passwords, "alice", password, "10.0.0.1")));
    drop(passwords);
    let mut answered: Vec<_> = told.try_iter().collect();
    answered.sort_unstable_by_key(|(_, ticket, _)| ticket.0);
    assert_eq!(answered, tickets.map(|ticket| (3, ticket, Verdict::Busy)));
}

#[test]
fn wrong_passwords_are_remembered_up_to_a_bound() {
    let key = MacKey::random().unwrap();
    let mut wrong = Wrong::default();
    for n in 0..PASSWORDS_WRONG_MAX + 10 {
        wrong.insert(key.mac(&[&n.to_le_bytes()]));
        wrong.insert(key.mac(&[&n.to_le_bytes()]));
    }
    assert_eq!((wrong.known.len(), wrong.order.len()), (PASSWORDS_WRONG_MAX, PASSWORDS_WRONG_MAX));
    assert!(!wrong.known.contains(&key.mac(&[&9_usize.to_le_bytes()])));
    assert!(wrong.known.contains(&key.mac(&[&10_usize.to_le_bytes()])));
}

/// Only the latest right password of a user is kept: bcrypt reads 72 bytes, so longer ones have endless variants.
#[test]
fn a_user_has_one_place_for_the_right_password() {
    let long = "p".repeat(72);
    let hash = PasswordHash::parse(&bcrypt::hash(&long, COST).unwrap()).unwrap();
    let (passwords, told) = start(HashMap::from([("alice".into(), hash)]), 4, 1);
    for n in 0..3 {
        assert_eq!(settle(&passwords, &told, "alice", &format!("{long}{n}")), Verdict::Right);
    }
    assert_eq!(check(&passwords, "alice", &format!("{long}2"), "10.0.0.1"), Check::Right("alice".into()));
    pending(check(&passwords, "alice", &format!("{long}0"), "10.0.0.1"));
}

/// Measured as CPU time, which other processes do not change much.
#[test]
fn an_unknown_user_takes_as_long_as_a_known_one() {
    let (passwords, _told) = start(users(8, &["alice"]), 4, 0);
    let cpu = |user: &str| {
        let spent = || -> u64 {
            let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
            stat.split_ascii_whitespace().next().unwrap().parse().unwrap()
        };
        let time = |_| {
            let begin = spent();
            assert!(!passwords.shared.is_right(user, &Secret::new("wrong")));
            spent() - begin
        };
        (0..5).map(time).min().unwrap()
    };
    let (known, unknown) = (cpu("alice"), cpu("nobody"));
    assert!(known > 1_000_000, "{known} ns for a hash of cost 8");
    assert!(unknown > known / 2 && known > unknown / 2, "{known} ns and {unknown} ns");
}

#[test]
fn secrets_are_not_shown() {
    let (passwords, _told) = start(users(COST, &["alice"]), 4, 0);
    pending(check(&passwords, "alice", "canary", "10.0.0.1"));
    let shown = format!("{passwords:?}");
    assert!(shown.contains("alice") && !shown.contains("canary") && !shown.contains("$2"), "{shown}");
}
