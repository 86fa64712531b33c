//! Floods of wrong credentials, beside senders with right ones.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::rig::{basic, bearer};
use crate::support::server::on_both;
use crate::support::tls::Folder;
use crate::support::{Ends, Reply, Server, Upstream, one};

/// Pushes one after another for so long. Returns how many.
fn push_for(server: &Server, header: &str, time: Duration) -> usize {
    let (mut client, until, mut pushes) = (server.client(), Instant::now() + time, 0);
    while Instant::now() < until {
        assert_eq!(client.push_with(&one("a"), header).status, 200);
        pushes += 1;
    }
    pushes
}

#[test]
fn a_flood_of_wrong_passwords_costs_others_little() {
    let folder = Folder::new();
    let hash = |password| bcrypt::hash(password, 10).unwrap();
    folder.put(
        "web.yml",
        &format!("basic_auth_users: {{alice: {0}, bob: {0}, carol: {1}}}\n", hash("secret"), hash("c")),
    );
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let extra = format!("auth: {{ingress: {{web_config_file: '{}'}}}}\n", folder.text("web.yml"));
        let server = Server::start(driver, upstream.address, &extra);
        let alice = basic("alice", "secret");
        let time = Duration::from_secs(1);
        let alone = push_for(&server, &alice, time);
        let (ends, answers, number) =
            (AtomicBool::new(false), [(); 3].map(|()| AtomicUsize::new(0)), AtomicUsize::new(0));
        let beside = std::thread::scope(|scope| {
            // Each of them opens a connection for each password, and so takes CPU time from the sender that is
            // measured.
            for _ in 0..4 {
                scope.spawn(|| {
                    while !ends.load(Ordering::Relaxed) {
                        let password = number.fetch_add(1, Ordering::Relaxed).to_string();
                        let response = server.client().push_with(&one("a"), &basic("bob", &password));
                        let kind = match response.status {
                            401 => 0,
                            503 => 1,
                            _ => 2,
                        };
                        answers[kind].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(300));
            let _end = Ends(&ends);
            // A sender whose password is known, and one whose password is checked now.
            let beside = push_for(&server, &alice, time);
            assert_eq!(server.client().push_with(&one("a"), &basic("carol", "c")).status, 200);
            beside
        });
        let [wrong, busy, other] = answers.map(AtomicUsize::into_inner);
        eprintln!("{alone} pushes alone, {beside} beside {wrong} wrong passwords and {busy} refused checks");
        assert!(beside * 20 > alone, "{beside} of {alone}");
        assert!(wrong > 0 && other == 0, "{wrong} {busy} {other}");
    });
}

#[test]
fn wrong_tokens_are_refused_and_the_right_one_is_served() {
    let folder = Folder::new();
    folder.put("tokens.yml", "- {name: agent, token_file: token}\n");
    folder.put("token", "the-right-token-0123456789abcdef\n");
    on_both(|driver| {
        let upstream = Upstream::start(|_| Reply::ok());
        let extra = format!("auth: {{ingress: {{tokens_file: '{}'}}}}\n", folder.text("tokens.yml"));
        let server = Server::start(driver, upstream.address, &extra);
        for number in 0..100 {
            let token = format!("a-wrong-token-0123456789abcdef-{number}");
            let response = server.client().push_with(&one("a"), &bearer(&token));
            assert_eq!(response.status, 401);
            assert_eq!(
                response.header("WWW-Authenticate"),
                Some("Bearer realm=\"Tenantry\", error=\"invalid_token\"")
            );
        }
        let right = bearer("the-right-token-0123456789abcdef");
        assert_eq!(server.client().push_with(&one("a"), &right).status, 200);
        assert_eq!(upstream.received().len(), 1);
    });
}
