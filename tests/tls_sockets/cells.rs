//! Upstreams with different TLS.

use testkit::pki::Authority;

use crate::relay::{Relay, relay_config};
use crate::support::server::{Server, on_both};
use crate::support::tls::{Folder, localhost};
use crate::support::{Reply, Upstream, body, one, series};

#[test]
fn one_cluster_gets_tls_and_another_plain_http() {
    let folder = Folder::new();
    let stranger = Authority::new("other").unwrap().issue(&localhost()).unwrap();
    folder.put_pair("stranger", &stranger);
    on_both(|driver| {
        let [main, eu, us] = std::array::from_fn(|_| Upstream::start(|_| Reply::ok()));
        let relay = Relay::start(relay_config(&folder, "server"), eu.address);
        let bad = Relay::start(relay_config(&folder, "stranger"), us.address);
        let ca = format!("tls_config: {{ca_bundle_file: '{}'}}", folder.text("ca.pem"));
        folder.put(
            "upstreams.yml",
            &format!(
                "- {{name: eu, tenants: [eu], target: 'https://localhost:{}/', {ca}}}\n\
                 - {{name: us, tenants: [us], target: 'https://localhost:{}/', {ca}}}\n",
                relay.address.port(),
                bad.address.port()
            ),
        );
        let extra = format!("upstreams: {}\n", folder.text("upstreams.yml"));
        let server = Server::start(driver, main.address, &extra);
        let both = body(vec![series("eu", "up", 1.0), series("plain", "up", 1.0)]);
        for _ in 0..3 {
            assert_eq!(server.client().push(&both).status, 200);
        }
        assert_eq!((eu.of("eu").len(), main.of("plain").len()), (3, 3));
        assert!(relay.connections() > 0 && !relay.heard_plain_bytes());
        let response = server.client().push(&one("us"));
        assert_eq!(response.status, 502, "{}", response.text());
        assert_eq!((us.received().len(), main.received().len(), eu.received().len()), (0, 3, 3));
        assert!(!bad.heard_plain_bytes());
    });
}
