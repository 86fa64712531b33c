//! What is wrong with certificates, keys and settings, told by file and all at once.

use rustls::pki_types::UnixTime;
use tenantry::tls::client::ClientSettings;
use tenantry::tls::identity::{PeerCertificate, Unparsable};
use tenantry::tls::material::{CertificateFiles, Mistake};
use tenantry::tls::names::ClientAuth;
use tenantry::tls::server::ServerSettings;
use testkit::pki::{Authority, Issued, Wanted, self_signed};

use super::pair::{Files, load_client, load_server};
use super::{World, only};

fn server_mistakes(files: &Files, settings: &ServerSettings) -> Vec<String> {
    texts(&load_server(files, settings).map(|_| ()).expect_err("there is a mistake"))
}

fn texts(mistakes: &[Mistake]) -> Vec<String> {
    mistakes.iter().map(ToString::to_string).collect()
}

/// A server with these two files.
fn server_of(certificate: &str, key: &str) -> Vec<String> {
    let mut files = Files::default();
    let certificates = vec![CertificateFiles {
        certificate: files.put("tls.crt", certificate),
        key: files.put("tls.key", key),
    }];
    server_mistakes(&files, &ServerSettings { certificates, ..ServerSettings::default() })
}

fn issue(wanted: &Wanted) -> Issued {
    Authority::new("Test CA").unwrap().issue(wanted).unwrap()
}

#[test]
fn a_servers_certificate_and_key() {
    let good = issue(&Wanted::server(&["localhost"]));
    let other = issue(&Wanted::server(&["localhost"]));
    let old = issue(&Wanted::server(&["old"]).valid((2020, 1, 1), (2021, 1, 1)));
    let future = issue(&Wanted::server(&["future"]).valid((2090, 1, 1), (2099, 1, 1)));
    let client = issue(&Wanted::client("agent"));
    let encrypted = good.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let traditional = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
        -----END EC PRIVATE KEY-----\n";
    let rsa = include_str!("../fixtures/tls-rsa.pem");
    let cut = &good.certificate[..good.certificate.len() - 30];
    let cut_key = &good.key[..good.key.len() - 30];
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let nonsense_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let table: &[(&str, &str, &[&str])] = &[
        ("!", &good.key, &["tls.crt: can't be read: permission denied"]),
        (&good.certificate, "!", &["tls.key: can't be read: permission denied"]),
        ("", &good.key, &["tls.crt: contains no certificate"]),
        (&good.key, &good.key, &["tls.crt: contains no certificate"]),
        (cut, &good.key, &["tls.crt: is not valid PEM: a section does not end"]),
        (nonsense, &good.key, &["tls.crt: certificate 1 in it is malformed"]),
        (&good.certificate, "", &["tls.key: contains no private key"]),
        (&good.certificate, &good.certificate, &["tls.key: contains no private key"]),
        (&good.certificate, cut_key, &["tls.key: is not valid PEM: a section does not end"]),
        (&good.certificate, nonsense_key, &["tls.key: its key can't be used: "]),
        (
            &good.certificate,
            &encrypted,
            &["tls.key: its key has a passphrase; write it without: openssl pkey"],
        ),
        (&good.certificate, traditional, &["tls.key: its key has a passphrase"]),
        (rsa, &good.key, &["tls.key: its key does not belong to the certificate in tls.crt"]),
        (&good.certificate, rsa, &["tls.key: its key does not belong to the certificate in tls.crt"]),
        (&good.certificate, &other.key, &["tls.key: its key does not belong to the certificate in tls.crt"]),
        (
            &old.certificate,
            &old.key,
            &["tls.crt: certificate 1 in it (CN=old) expired at Jan  1 00:00:00 2021 +00:00"],
        ),
        (
            &future.certificate,
            &future.key,
            &["tls.crt: certificate 1 in it (CN=future) is not valid before Jan  1 00:00:00 2090"],
        ),
        (
            &client.certificate,
            &client.key,
            &["tls.crt: its certificate is for another purpose: its extended key usage lacks serverAuth"],
        ),
        ("", "", &["tls.crt: contains no certificate", "tls.key: contains no private key"]),
        (
            &[&good.certificate[..], &old.certificate, nonsense].concat(),
            &other.key,
            &[
                "tls.crt: certificate 2 in it (CN=old) expired",
                "tls.crt: certificate 3 in it is malformed",
                "tls.key: its key does not belong",
            ],
        ),
    ];
    for (certificate, key, expected) in table {
        let found = server_of(certificate, key);
        assert_eq!(found.len(), expected.len(), "{found:#?}, not {expected:#?}");
        for (found, expected) in found.iter().zip(*expected) {
            assert!(found.starts_with(expected), "{found}, not {expected}");
        }
    }
}

#[test]
fn no_mistake_shows_a_key() {
    let good = issue(&Wanted::server(&["localhost"]));
    let secret = good.key.lines().nth(1).unwrap();
    let broken = [
        good.key.replace("-----END", "----END"),
        good.key.replace(secret, &format!("{secret}!!!!")),
        good.key.replace("BEGIN PRIVATE KEY-----", "BEGIN PRIVATE KEY"),
        format!("-----BEGIN {secret}"),
        good.key.replace(secret, &secret[..40]),
    ];
    for key in broken {
        let found = server_of(&good.certificate, &key).concat();
        assert!(found.starts_with("tls.key: ") && !found.contains(&secret[..16]), "{found}");
    }
}

#[test]
fn a_certificate_for_any_purpose_or_for_none_in_particular_is_good() {
    let any = testkit::pki::Usage::Any;
    for usages in [&[][..], &[any]] {
        let mut world = World::new();
        let wanted = Wanted::server(&["localhost"]).with_usages(usages);
        let issued = world.authority.issue(&wanted).unwrap();
        world.server.certificates = vec![world.files.put_pair("any", &issued, "")];
        load_server(&world.files, &world.server).unwrap();
        world.client.certificate = world.server.certificates.first().cloned();
        load_client(&world.files, &world.client).unwrap();
    }
}

#[test]
fn the_end_of_validity_is_the_earliest_of_all_certificates_and_chains() {
    let mut world = World::new();
    let chain = issue(&Wanted::server(&["chain"]).valid((2020, 1, 1), (2095, 1, 1)));
    let first = world.authority.issue(&Wanted::server(&["a"]).valid((2020, 1, 1), (2099, 1, 1))).unwrap();
    world.server.certificates.push(world.files.put_pair("a", &first, &chain.certificate));
    let server = load_server(&world.files, &world.server).unwrap();
    assert_eq!(server.not_after(), 3_944_678_400, "2095-01-01");
    let agent = world.authority.issue(&Wanted::client("agent")).unwrap();
    assert_eq!(load_client(&world.files, &world.client).unwrap().not_after(), None);
    world.client.certificate = Some(world.files.put_pair("agent", &agent, ""));
    assert_eq!(
        load_client(&world.files, &world.client).unwrap().not_after(),
        Some(4_102_444_800),
        "2100-01-01"
    );
}

#[test]
fn authorities() {
    let (authority, leaf) = (Authority::new("Test CA").unwrap(), issue(&Wanted::server(&["x"])));
    let expired = Authority::valid("Old CA", (2020, 1, 1), (2021, 1, 1)).unwrap().certificate();
    let own = self_signed(&Wanted::server(&["self"])).unwrap();
    let refused: &[(String, &[&str])] = &[
        ("!".into(), &["ca.pem: can't be read: permission denied"]),
        (String::new(), &["ca.pem: contains no certificate"]),
        (leaf.key.clone(), &["ca.pem: contains no certificate"]),
        (leaf.certificate.clone(), &["ca.pem: contains no certificate of an authority (CA:TRUE)"]),
        (expired.clone(), &["ca.pem: certificate 1 in it (CN=Old CA) expired at"]),
        (format!("{}{expired}", leaf.certificate), &["ca.pem: certificate 2 in it (CN=Old CA) expired at"]),
    ];
    for (content, expected) in refused {
        let mut files = Files::default();
        let ca = Some(files.put("ca.pem", content));
        let client = ClientSettings { ca: ca.clone(), ..ClientSettings::default() };
        let found = texts(&load_client(&files, &client).map(|_| ()).unwrap_err());
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        assert!(
            found.iter().zip(*expected).all(|(found, expected)| found.starts_with(expected)),
            "{found:#?}"
        );
        // A server's client_ca_file is read in the same way.
        let pair = issue(&Wanted::server(&["localhost"]));
        let certificates = vec![files.put_pair("tls", &pair, "")];
        let server = ServerSettings {
            certificates,
            client_ca: ca,
            client_auth: ClientAuth::Require,
            ..ServerSettings::default()
        };
        assert_eq!(server_mistakes(&files, &server), found);
    }
    for content in [authority.certificate(), own.certificate, format!("{}{expired}", authority.certificate())]
    {
        let mut files = Files::default();
        let ca = Some(files.put("ca.pem", &content));
        load_client(&files, &ClientSettings { ca, ..ClientSettings::default() }).unwrap();
    }
}

#[test]
fn a_system_without_roots_is_a_mistake_unless_they_are_not_needed() {
    let files = Files::default();
    let found = texts(&load_client(&files, &ClientSettings::default()).map(|_| ()).unwrap_err());
    assert_eq!(found, ["ca_bundle_file: the system has no usable root certificates: none was found"]);
    let careless = ClientSettings { insecure_skip_verify: true, ..ClientSettings::default() };
    load_client(&files, &careless).unwrap();
    let careless = ClientSettings { ca: Some("none.pem".into()), ..careless };
    let found = texts(&load_client(&files, &careless).map(|_| ()).unwrap_err());
    assert_eq!(found, ["none.pem: can't be read: entity not found"], "a file that is named has to be there");
}

#[test]
fn all_mistakes_of_a_server_are_told_at_once() {
    let mut world = World::new();
    world.server.certificates.push(CertificateFiles { certificate: "a.crt".into(), key: "a.key".into() });
    world.server.client_auth = ClientAuth::Require;
    world.server.choices.cipher_suites = vec!["TLS_FAST".into()];
    let found = server_mistakes(&world.files, &world.server);
    let expected = [
        "cipher_suites: there is no cipher suite named \"TLS_FAST\"",
        "a.crt: can't be read: ",
        "a.key: can't be read: ",
        "client_auth: needs client_ca_file",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    assert!(found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)), "{found:#?}");
}

#[test]
fn settings_that_do_not_go_together() {
    let mut world = World::new();
    world.server.client_ca = Some("ca.pem".into());
    let unused = "client_ca_file: has no effect unless clients are asked for a certificate";
    assert_eq!(server_mistakes(&world.files, &world.server), [unused]);
    let nothing = ServerSettings::default();
    assert_eq!(server_mistakes(&world.files, &nothing), ["cert_file: is missing"]);
    world.server.client_ca = None;
    world.server.choices = only("TLS12");
    world.server.choices.cipher_suites = vec!["TLS_AES_128_GCM_SHA256".into()];
    let found = server_mistakes(&world.files, &world.server);
    assert!(found[0].starts_with("tls_config: can't be used: "), "{found:?}");
}

#[test]
fn all_mistakes_of_a_client_are_told_at_once() {
    let mut world = World::new();
    let server = world.authority.issue(&Wanted::server(&["x"])).unwrap();
    world.client.certificate = Some(world.files.put_pair("wrong", &server, ""));
    world.client.ca = Some("none.pem".into());
    world.client.server_name = Some("not a name".into());
    world.client.choices.min_version = Some("TLS10".into());
    let found = texts(&load_client(&world.files, &world.client).map(|_| ()).unwrap_err());
    let expected = [
        "min_version: TLS10 is not supported",
        "none.pem: can't be read: ",
        "wrong.pem: its certificate is for another purpose: its extended key usage lacks clientAuth",
        "server_name: is neither a DNS name nor an IP address",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    assert!(found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected)), "{found:#?}");
}

#[test]
fn a_time_before_and_after_is_taken_from_the_caller() {
    let world = World::new();
    let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let load =
        |now| tenantry::tls::server::ServerTls::load(&world.server, &world.files, now, None).map(|_| ());
    assert!(load(at(1_577_836_799)).is_err(), "a second before 2020");
    assert!(load(at(1_577_836_800)).is_ok());
    assert!(load(at(4_102_444_800)).is_ok(), "the last second");
    assert!(load(at(4_102_444_801)).is_err());
}

#[test]
fn an_identity_needs_a_certificate() {
    assert_eq!(PeerCertificate::of(&b"nonsense".to_vec().into()), Err(Unparsable));
}
