//! Request smuggling: requests whose end two readers may see in different places. Raw bytes against the real server, on
//! both rings, over plain TCP and over TLS.
//!
//! Every attack carries a whole second request in or after its first one. Whatever the answer to the first is, the
//! server must not read the second as a request, and nothing of it may reach the upstream.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod support;

use support::client::push_head;
use support::{Client, Reply, Server, Upstream, body, on_all, series};

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// The request that is smuggled. It is valid by itself.
fn smuggled() -> Vec<u8> {
    let body = body(vec![series("smuggled", "up", 1.0)]);
    [push_head(body.len(), "").as_bytes(), &body].concat()
}

/// A push with these fields, and `rest` after its head.
fn push(fields: &str, rest: &[u8]) -> Vec<u8> {
    [format!("POST /push HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes(), rest].concat()
}

/// Bodies that end by one field and go on by the other.
fn both_fields() -> Vec<Vec<u8>> {
    let mut attacks = Vec::new();
    let behind = [b"0\r\n\r\n", &smuggled()[..]].concat();
    for length in ["Content-Length", "content-length", "CONTENT-LENGTH"] {
        for coding in ["Transfer-Encoding", "transfer-encoding", "TRANSFER-ENCODING"] {
            for value in ["chunked", "Chunked", "CHUNKED", "\tchunked\t"] {
                for bytes in [0, 5, behind.len()] {
                    let (length, coding) =
                        (format!("{length}: {bytes}\r\n"), format!("{coding}: {value}\r\n"));
                    attacks.push(push(&format!("{length}{coding}"), &behind));
                    attacks.push(push(&format!("{coding}{length}"), &behind));
                    attacks.push(push(&format!("{coding}X: y\r\n{length}"), &behind));
                }
            }
        }
    }
    attacks
}

/// Codings that some readers take for `chunked` and others do not, with and without a length.
fn codings() -> Vec<Vec<u8>> {
    let fields = [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chun ked\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: \x0cchunked\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding: \u{a0}chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "\tTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding: chunked\r\n , identity\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\r\r\nTransfer-Encoding: chunked\r\n",
        "X: y\0Transfer-Encoding: chunked\r\n",
        "Transfer\0-Encoding: chunked\r\n",
        "Transfer Encoding: chunked\r\n",
        "Transfer-Encoding chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-encoding: x\r\n",
    ];
    let behind = [b"0\r\n\r\n", &smuggled()[..]].concat();
    let with_length = fields.iter().map(|field| push(&format!("Content-Length: 5\r\n{field}"), &behind));
    fields.iter().map(|field| push(field, &behind)).chain(with_length).collect()
}

/// Lengths that readers may parse to different numbers, or refuse.
fn lengths() -> Vec<Vec<u8>> {
    let values = [
        "+5",
        "-5",
        "-0",
        "5, 5",
        "5,5",
        "5, 6",
        "5 5",
        "5;",
        "5,",
        ",5",
        "0x5",
        "0x0",
        "5h",
        "5.0",
        "1e1",
        "\"5\"",
        "",
        "５",
        "5\0",
        "\x005",
        "5\x0b",
        "\x0c5",
        "5\u{a0}",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999999999",
        "5\r\nContent-Length: 5",
        "5\r\nContent-Length: 6",
        "5\r\ncontent-length: 5",
        "5\r\n 5",
        "\r\n 5",
        "5\nX: y",
        "5\rX: y",
    ];
    let behind = [b"abcde", &smuggled()[..]].concat();
    let odd_names =
        ["Content-Length : 5", "Content-Length\t: 5", " Content-Length: 5", "Content\0-Length: 5"];
    let named = odd_names.iter().map(|field| push(&format!("{field}\r\n"), &behind));
    values.iter().map(|value| push(&format!("Content-Length: {value}\r\n"), &behind)).chain(named).collect()
}

/// Heads that readers may end in different places, or read with different targets.
fn heads() -> Vec<Vec<u8>> {
    let behind = smuggled();
    [
        "POST /push HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "POST /push HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n",
        "POST /push HTTP/1.1\r\nHost: x, y\r\nHost:\r\n\r\n",
        "POST /push HTTP/1.1\r\nHost: x/y\r\n\r\n",
        "POST /push HTTP/1.1\r\nHost: u@x\r\n\r\n",
        "POST /push HTTP/1.1\r\n\r\n",
        "POST /push HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        "POST /push HTTP/1.1\r\nHost: x\r\nX\0: a\r\n\r\n",
        "POST /push HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
        "POST /push HTTP/1.1\r\nHost: x\r\nX: a\x7f\r\n\r\n",
        "POST /push HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n",
        "POST /push HTTP/1.1\r\nHost: x\r\nX\r\n\r\n",
        "POST /push HTTP/1.1\r\nHost: x\r\nX(y): z\r\n\r\n",
        "POST /push HTTP/1.1\nHost: x\n\n",
        "POST /push HTTP/1.1\r\nHost: x\n\r\n",
        "POST /push HTTP/1.1\r\nHost: x\r\n\n",
        "POST /push HTTP/1.1\rHost: x\r\r",
        "POST /push HTTP/1.1\r\n Host: x\r\n\r\n",
        "POST  /push HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST\t/push HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /push  HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /push HTTP/1.1 \r\nHost: x\r\n\r\n",
        "POST /push HTTP/1.1 x\r\nHost: x\r\n\r\n",
        "POST /push x HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /push\r\nHost: x\r\n\r\n",
        "POST /push HTTP/0.9\r\nHost: x\r\n\r\n",
        "POST /push HTTP/1.2\r\nHost: x\r\n\r\n",
        "POST /push HTTP/2.0\r\nHost: x\r\n\r\n",
        "POST /push HTTP/11\r\nHost: x\r\n\r\n",
        "POST /push http/1.1\r\nHost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\0POST /push HTTP/1.1\r\nHost: x\r\n\r\n",
        " POST /push HTTP/1.1\r\nHost: x\r\n\r\n",
        "PO\0ST /push HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST * HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST push HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /pu\0sh HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /push#x HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /push\u{e9} HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST http:///push HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST http://u@x/push HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST ftp://x/push HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST http:/x/push HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /push HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /push HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /alive HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n",
        "GET /alive HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ]
    .iter()
    .map(|head| [head.as_bytes(), &behind].concat())
    .collect()
}

/// Chunks that readers may end in different places.
fn chunks() -> Vec<Vec<u8>> {
    let bodies = [
        "zz\r\n",
        "\r\n",
        " \r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\t;x\r\nabc\r\n0\r\n\r\n",
        "3h\r\nabc\r\n0\r\n\r\n",
        "３\r\nabc\r\n0\r\n\r\n",
        "1_0\r\nabc\r\n0\r\n\r\n",
        "3;x=\n\r\nabc\r\n0\r\n\r\n",
        "3,3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3\rabc\r\n0\r\n\r\n",
        "3\r\rabc\r\n0\r\n\r\n",
        "3;x\nabc\r\n0\r\n\r\n",
        "3;x\0\r\nabc\r\n0\r\n\r\n",
        "3;x\ry\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "0\n\n",
        "0\r\n\n",
        "0\n\r\n",
        "0\r\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\r\r\n",
        "0\r\nX y\r\n\r\n",
        "0\r\n folded: y\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
        // Sizes that overflow, or that a reader may truncate.
        "10000000000000000\r\n",
        "10000000000000003\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "00000000000000003\r\nabc\r\n0\r\n\r\n",
    ];
    bodies.iter().map(|body| push(CHUNKED, &[body.as_bytes(), &smuggled()].concat())).collect()
}

/// Sends an attack. There must be one answer, and then the end of the connection. Returns the status.
fn answer_and_end(server: &Server, attack: &[u8]) -> u16 {
    let mut client = server.client();
    client.try_send(attack);
    let response = client.response();
    let shown = attack[..attack.len() - smuggled().len()].escape_ascii();
    assert_eq!(response.header("connection"), Some("close"), "{shown}");
    assert!(client.is_closed(), "answered more than once: {shown}");
    response.status
}

#[test]
fn the_smuggled_request_is_accepted_by_itself() {
    on_all(|driver, transport| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start_over(transport, driver, upstream.address, "");
        let mut client = server.client();
        client.send(&smuggled());
        assert_eq!(client.response().status, 200);
        assert_eq!(upstream.of("smuggled").len(), 1);
    });
}

#[test]
fn a_request_without_a_certain_end_is_refused_and_nothing_after_it_is_read() {
    on_all(|driver, transport| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start_over(transport, driver, upstream.address, "timeout: 3s\n");
        let attacks = [both_fields(), codings(), lengths(), heads(), chunks()].concat();
        assert!(attacks.len() > 400, "{}", attacks.len());
        for attack in &attacks {
            let shown = attack[..attack.len() - smuggled().len()].escape_ascii();
            assert_eq!(answer_and_end(&server, attack), 400, "{shown}");
        }
        assert!(upstream.received().is_empty(), "{:?}", upstream.received());
    });
}

#[test]
fn the_body_of_a_refused_request_is_not_read_as_a_request() {
    on_all(|driver, transport| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server =
            Server::start_over(transport, driver, upstream.address, "limits: {body_bytes_max: 100}\n");
        let second = smuggled();
        let length = format!("Content-Length: {}\r\n", second.len());
        let with = |line: &str, fields: &str| {
            [format!("{line}\r\nHost: x\r\n{fields}\r\n").as_bytes(), &second].concat()
        };
        let push = "POST /push HTTP/1.1";
        for (status, attack) in [
            (404, with("POST /pull HTTP/1.1", &length)),
            (404, with("POST /pull HTTP/1.1", "")),
            (404, with("OPTIONS * HTTP/1.1", "")),
            (405, with("PUT /push HTTP/1.1", &length)),
            (405, with("post /push HTTP/1.1", &length)),
            (405, with("GET /push HTTP/1.1", &length)),
            (413, with(push, &length)),
            (413, with(push, "Content-Length: 18446744073709551615\r\n")),
            (413, chunked_too_large()),
            (415, with(push, &format!("Content-Type: text/plain\r\n{length}"))),
            (415, with(push, &format!("Content-Encoding: br\r\n{length}"))),
            (431, with(push, &format!("X: {}\r\n{length}", "y".repeat(20_000)))),
        ] {
            assert_eq!(answer_and_end(&server, &attack), status);
        }
        assert!(upstream.received().is_empty(), "{:?}", upstream.received());
    });
}

/// A chunk with the largest possible size, and a request in the place of its data.
fn chunked_too_large() -> Vec<u8> {
    push(CHUNKED, &[b"ffffffffffffffff\r\n", &smuggled()[..]].concat())
}

/// Everything up to the end of such a request is its body, and the next request follows.
#[test]
fn unusual_requests_with_one_meaning_are_accepted() {
    on_all(|driver, transport| {
        let upstream = Upstream::start(|_| Reply::ok());
        let server = Server::start_over(transport, driver, upstream.address, "");
        let good = body(vec![series("good", "up", 1.0)]);
        let second = smuggled();
        let chunk = |data: &[u8], extension: &str, trailer: &str| {
            let head = format!("{:x}{extension}\r\n", data.len());
            [head.as_bytes(), data, b"\r\n000\r\n", trailer.as_bytes(), b"\r\n"].concat()
        };
        let length = |body: &[u8]| format!("Content-Length: {}\r\n", body.len());
        let absolute = format!("POST http://elsewhere/push HTTP/1.1\r\nHost: x\r\n{}\r\n", length(&good));
        let old = format!("POST /push HTTP/1.0\r\nConnection: keep-alive\r\n{}\r\n", length(&good));
        let trailer = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: y\r\nX-Scope-OrgID: evil\r\n";
        for (status, request) in [
            // The data of a body is no request, and here no snappy block either.
            (400, push(&length(&second), &second)),
            (400, push(CHUNKED, &chunk(&second, "", ""))),
            // Extensions and trailers change neither the end of a message nor its tenant.
            (200, push(CHUNKED, &chunk(&good, ";a=\"b;c\";d", trailer))),
            // Naming a field in Connection does not remove it from the message.
            (400, push(&format!("Connection: Content-Length\r\n{}", length(&second)), &second)),
            (200, push(&format!("Connection: Transfer-Encoding\r\n{CHUNKED}"), &chunk(&good, "", ""))),
            // Other names are other fields.
            (400, push(&format!("Transfer_Encoding: chunked\r\n{}", length(&second)), &second)),
            (200, push(&format!("Content_Length: 1\r\n{}", length(&good)), &good)),
            (200, [absolute.as_bytes(), &good].concat()),
            (200, [old.as_bytes(), &good].concat()),
            (200, [b"\r\n\r\n", &push(&length(&good), &good)[..]].concat()),
        ] {
            let mut client: Client = server.client();
            client.send(
                &[&request[..], b"GET /alive HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"].concat(),
            );
            let shown = request.escape_ascii();
            assert_eq!(client.response().status, status, "{shown}");
            let alive = client.response();
            assert_eq!((alive.status, alive.header("connection")), (200, Some("close")), "{shown}");
            assert!(client.is_closed(), "{shown}");
        }
        assert!(upstream.received().iter().all(|r| r.tenant() == "good"));
        assert_eq!(upstream.received().len(), 6);
    });
}
