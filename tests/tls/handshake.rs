//! What a handshake agrees on.

use rustls::pki_types::UnixTime;
use tenantry::tls::client::ClientSettings;
use tenantry::tls::error::{Fault, SessionError};
use tenantry::tls::identity::PeerCertificate;
use tenantry::tls::material::CertificateFiles;
use tenantry::tls::names::{Choices, ClientAuth};
use tenantry::tls::server::ServerTls;
use testkit::pki::{Authority, Wanted};

use super::pair::{Pair, load_client, load_server};
use super::{VERSIONS, World, only};

#[test]
fn both_versions_shake_hands_and_speak_http_1_1() {
    for (written, version) in VERSIONS {
        let (client, server) = World::with_version(written).load();
        let mut pair = Pair::connected(&client, &server, "localhost");
        for end in [&pair.client, &pair.server] {
            assert_eq!(end.session.version(), Some(version));
            assert_eq!(end.session.alpn(), Some(&b"http/1.1"[..]));
            assert_eq!(end.session.is_resumed(), Some(false));
        }
        assert_eq!(pair.send(&[b"request"], usize::MAX), Ok(b"request".to_vec()));
        assert_eq!(pair.reply(&[b"reply"], usize::MAX), Ok(b"reply".to_vec()));
        assert!(pair.client.session.peer_certificate().is_some());
        assert_eq!(pair.server.session.peer_certificate(), None);
    }
}

#[test]
fn before_anything_is_agreed_nothing_is_said_and_nothing_is_encrypted() {
    let (client, server) = World::new().load();
    let mut pair = Pair::new(&client, &server, "localhost");
    assert_eq!((pair.server.session.version(), pair.server.session.cipher_suite()), (None, None));
    let early = pair.server.session.encrypt([&b"reply"[..]], 100, &mut pair.server.outgoing);
    assert_eq!(early.unwrap_err().fault(), Fault::Ours);
    pair.server.session.close(&mut pair.server.outgoing);
    assert!(pair.server.outgoing.is_empty());
    assert_eq!(pair.shake(), (Ok(()), Ok(())), "that did no harm");
}

#[test]
fn the_suite_and_the_curve_are_those_that_were_chosen() {
    let mut world = World::with_version("TLS12");
    let suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    world.server.choices = Choices { cipher_suites: vec![suite.into()], ..Choices::default() };
    let (client, server) = world.load();
    let pair = Pair::connected(&client, &server, "localhost");
    assert_eq!(pair.server.session.cipher_suite().as_deref(), Some(suite));

    let mut world = World::new();
    let curve = |name: &str| Choices { curve_preferences: vec![name.into()], ..Choices::default() };
    (world.server.choices, world.client.choices) = (curve("CurveP384"), curve("X25519"));
    let (client, server) = world.load();
    let (up, down) = Pair::new(&client, &server, "localhost").shake();
    assert!(matches!(up, Err(SessionError::Refused(_))), "{up:?}");
    assert!(matches!(down, Err(SessionError::Incompatible(_))), "{down:?}");
}

#[test]
fn the_servers_order_of_suites_counts_if_it_is_preferred() {
    let suites = ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"];
    let list = |order: [usize; 2]| order.map(|i| suites[i].to_owned()).to_vec();
    for (prefer, expected) in [(false, suites[1]), (true, suites[0])] {
        let mut world = World::with_version("TLS12");
        world.server.choices.cipher_suites = list([0, 1]);
        world.client.choices.cipher_suites = list([1, 0]);
        world.server.prefer_server_cipher_suites = prefer;
        let (client, server) = world.load();
        let pair = Pair::connected(&client, &server, "localhost");
        assert_eq!(pair.client.session.cipher_suite().as_deref(), Some(expected), "{prefer}");
    }
}

#[test]
fn versions_that_do_not_meet_are_refused() {
    let mut world = World::with_version("TLS12");
    world.server.choices = only("TLS13");
    let (client, server) = world.load();
    let (up, down) = Pair::new(&client, &server, "localhost").shake();
    assert_eq!(up.unwrap_err().to_string(), "the peer refused: protocol_version");
    assert!(matches!(down, Err(SessionError::Incompatible(_))), "{down:?}");
}

#[test]
fn a_name_chooses_its_certificate() {
    let mut world = World::new();
    for names in [&["*.example.org", "example.org"][..], &["push.example.org"], &["other.test"]] {
        let issued = world.authority.issue(&Wanted::server(names)).unwrap();
        world.server.certificates.push(world.files.put_pair(names[0], &issued, ""));
    }
    world.client.insecure_skip_verify = true;
    let (client, server) = world.load();
    let expectations = [
        ("localhost", "localhost"),
        ("push.example.org", "push.example.org"),
        ("PUSH.Example.ORG", "push.example.org"),
        ("logs.example.org", "*.example.org"),
        ("example.org", "*.example.org"),
        ("a.b.example.org", "localhost"),
        ("other.test", "other.test"),
        ("unknown.test", "localhost"),
        ("127.0.0.1", "localhost"),
    ];
    for (asked, expected) in expectations {
        let pair = Pair::connected(&client, &server, asked);
        let shown = PeerCertificate::of(pair.client.session.peer_certificate().unwrap()).unwrap();
        assert_eq!(shown.common_name.as_deref(), Some(expected), "{asked}");
    }
}

#[test]
fn of_two_certificates_for_a_name_the_client_gets_one_that_it_can_verify() {
    let mut world = World::new();
    let rsa = world.files.put("rsa.pem", include_str!("../fixtures/tls-rsa.pem"));
    world.server.certificates.push(CertificateFiles { certificate: rsa.clone(), key: rsa });
    world.client.insecure_skip_verify = true;
    for (suite, expected) in [
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "localhost"),
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "rsa"),
    ] {
        world.client.choices = Choices { cipher_suites: vec![suite.into()], ..only("TLS12") };
        let (client, server) = world.load();
        for name in ["localhost", "unknown.test"] {
            let pair = Pair::connected(&client, &server, name);
            let shown = PeerCertificate::of(pair.client.session.peer_certificate().unwrap()).unwrap();
            assert_eq!(shown.common_name.as_deref(), Some(expected), "{suite} {name}");
            assert_eq!(pair.client.session.cipher_suite().as_deref(), Some(suite));
        }
    }
}

#[test]
fn sessions_are_resumed_across_reloads_and_for_each_address_apart() {
    for (version, _) in VERSIONS {
        let world = World::with_version(version);
        let (client, server) = world.load();
        let resumed = |client: &_, server: &_| {
            Pair::connected(client, server, "localhost").server.session.is_resumed().unwrap()
        };
        assert!(!resumed(&client, &server), "the first");
        assert_eq!((0..5).filter(|_| resumed(&client, &server)).count(), 5, "{version}");
        let reloaded = ServerTls::load(&world.server, &world.files, UnixTime::now(), Some(&server)).unwrap();
        assert!(resumed(&client, &reloaded));
        assert!(!resumed(&client.for_address(), &reloaded), "another address");
        assert!(!resumed(&client, &load_server(&world.files, &world.server).unwrap()), "another process");
    }
}

#[test]
fn a_session_is_not_resumed_where_clients_have_to_prove_more() {
    for (version, _) in VERSIONS {
        let mut world = World::with_version(version);
        let (client, server) = world.load();
        Pair::connected(&client, &server, "localhost");
        world.server.client_auth = ClientAuth::Require;
        world.server.client_ca = Some("ca.pem".into());
        let stricter = ServerTls::load(&world.server, &world.files, UnixTime::now(), Some(&server)).unwrap();
        let (_, down) = Pair::new(&client, &stricter, "localhost").shake();
        assert_eq!(down, Err(SessionError::Certificate("it has none".into())));
    }
}

/// A world in which the client has a certificate of `issuer`, and the server trusts the world's own.
fn with_client_certificate(
    version: &str,
    auth: ClientAuth,
    issuer: Option<&Authority>,
    wanted: &Wanted,
) -> World {
    let mut world = World::with_version(version);
    world.server.client_auth = auth;
    world.server.client_ca = Some("ca.pem".into());
    let issued = issuer.unwrap_or(&world.authority).issue(wanted).unwrap();
    world.client.certificate = Some(world.files.put_pair("client", &issued, ""));
    world
}

#[test]
fn a_client_certificates_names_are_known_after_a_resumption_too() {
    let wanted = Wanted {
        dns_names: vec!["agent-1.example.org".into()],
        uris: vec!["spiffe://example.org/team-a".into()],
        ..Wanted::client("agent 1")
    };
    for auth in [ClientAuth::Require, ClientAuth::VerifyIfGiven] {
        for (version, _) in VERSIONS {
            let (client, server) = with_client_certificate(version, auth, None, &wanted).load();
            for resumed in [false, true] {
                let pair = Pair::connected(&client, &server, "localhost");
                assert_eq!(pair.server.session.is_resumed(), Some(resumed));
                let identity = PeerCertificate::of(pair.server.session.peer_certificate().unwrap()).unwrap();
                let expected = PeerCertificate {
                    common_name: Some("agent 1".into()),
                    dns: vec!["agent-1.example.org".into()],
                    uris: vec!["spiffe://example.org/team-a".into()],
                    emails: Vec::new(),
                    ips: Vec::new(),
                    not_after: 4_102_444_800,
                };
                assert_eq!(identity, expected);
            }
        }
    }
}

#[test]
fn a_client_without_a_certificate_is_let_in_only_where_that_is_allowed() {
    for (version, _) in VERSIONS {
        for (auth, allowed) in [(ClientAuth::Require, false), (ClientAuth::VerifyIfGiven, true)] {
            let mut world = with_client_certificate(version, auth, None, &Wanted::client("agent"));
            world.client.certificate = None;
            let (client, server) = world.load();
            let (up, down) = Pair::new(&client, &server, "localhost").shake();
            if allowed {
                assert_eq!((up, down), (Ok(()), Ok(())));
            } else {
                assert_eq!(down, Err(SessionError::Certificate("it has none".into())));
                assert!(matches!(up, Err(SessionError::Refused(_))), "it hears of it: {up:?}");
            }
        }
    }
}

#[test]
fn a_client_certificate_of_another_authority_is_refused_where_one_is_optional_too() {
    let other = Authority::new("Other CA").unwrap();
    for (version, _) in VERSIONS {
        for auth in [ClientAuth::Require, ClientAuth::VerifyIfGiven] {
            let world = with_client_certificate(version, auth, Some(&other), &Wanted::client("agent"));
            let (client, server) = world.load();
            let (_, down) = Pair::new(&client, &server, "localhost").shake();
            let text = down.unwrap_err().to_string();
            assert_eq!(
                text,
                "the peer's certificate is not accepted: none of the trusted authorities has issued it"
            );
        }
    }
}

#[test]
fn a_client_trusts_the_systems_roots_unless_it_is_given_others() {
    let mut world = World::new();
    world.files.roots = world.authority.certificate();
    world.client = ClientSettings::default();
    let (client, server) = world.load();
    Pair::connected(&client, &server, "localhost");
    let other = Authority::new("Other CA").unwrap();
    world.client.ca = Some(world.files.put("other.pem", &other.certificate()));
    let (client, server) = world.load();
    let (up, down) = Pair::new(&client, &server, "localhost").shake();
    assert!(matches!(up, Err(SessionError::Certificate(_))), "{up:?}");
    assert_eq!(down.unwrap_err().to_string(), "the peer refused: unknown_ca");
}

#[test]
fn a_servers_certificate_has_to_be_for_the_name_that_was_meant() {
    let mut world = World::new();
    let (client, server) = world.load();
    let (up, down) = Pair::new(&client, &server, "elsewhere.test").shake();
    let text = up.unwrap_err().to_string();
    assert!(text.contains("it is not for elsewhere.test, but for "), "{text}");
    assert!(matches!(down, Err(SessionError::Refused(_))), "{down:?}");
    world.client.server_name = Some("localhost".into());
    let client = load_client(&world.files, &world.client).unwrap();
    Pair::connected(&client, &server, "elsewhere.test");
    world.client.server_name = None;
    world.client.insecure_skip_verify = true;
    let client = load_client(&world.files, &world.client).unwrap();
    assert!(client.is_insecure());
    Pair::connected(&client, &server, "elsewhere.test");
}

#[test]
fn certificates_that_are_out_of_time_are_refused() {
    for (version, _) in VERSIONS {
        let mut world = World::with_version(version);
        let wanted = Wanted::server(&["localhost"]).valid((2020, 1, 1), (2020, 2, 1));
        let issued = world.authority.issue(&wanted).unwrap();
        world.server.certificates = vec![world.files.put_pair("old", &issued, "")];
        let client = load_client(&world.files, &world.client).unwrap();
        // It was valid when the server read it.
        let then = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_579_000_000));
        let server = ServerTls::load(&world.server, &world.files, then, None).unwrap();
        let (up, down) = Pair::new(&client, &server, "localhost").shake();
        assert_eq!(up.unwrap_err().to_string(), "the peer's certificate is not accepted: it has expired");
        assert_eq!(down.unwrap_err().to_string(), "the peer refused: certificate_expired");
    }
}

#[test]
fn an_address_can_be_a_servers_name() {
    let mut world = World::new();
    let addresses = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let issued = world.authority.issue(&Wanted { addresses, ..Wanted::server(&[]) }).unwrap();
    world.server.certificates = vec![world.files.put_pair("address", &issued, "")];
    let (client, server) = world.load();
    for name in ["127.0.0.1", "::1", "[::1]"] {
        Pair::connected(&client, &server, name);
    }
    assert!(Pair::new(&client, &server, "127.0.0.2").shake().0.is_err());
}
