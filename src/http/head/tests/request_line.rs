//! Methods, targets, versions, and what stands between them.

use super::*;

#[test]
fn empty_lines_before_the_request_line_are_skipped_and_counted() {
    let text = "\r\n\r\nGET /alive HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(path(text), "/alive");
    assert_eq!(parse("\r\n\r\n"), Ok(None));
}

#[test]
fn methods_are_told_apart_by_case() {
    for (token, method) in [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Other),
        ("DELETE", Method::Other),
        ("post", Method::Other),
        ("PATCH!~", Method::Other),
    ] {
        assert_eq!(whole(format!("{token} /push HTTP/1.1\r\nHost: a\r\n\r\n")).method, method);
    }
}

#[test]
fn malformed_methods_are_refused() {
    for token in ["", " POST", "PO ST", "PO\tST", "P\u{e9}ST", "POST:", "(POST)", "PO\0ST"] {
        assert!(parse(format!("{token} /push HTTP/1.1\r\nHost: a\r\n\r\n")).is_err(), "{token:?}");
    }
}

#[test]
fn only_http_1_0_and_1_1_are_accepted() {
    for version in
        ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "http/1.1", "HTTP/1.10", "HTTP/11", "HTTP/1,1", "HTTPS/1.1"]
    {
        assert!(parse(format!("GET /alive {version}\r\nHost: a\r\n\r\n")).is_err(), "{version:?}");
    }
    assert_bad("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "neither HTTP/1.0 nor HTTP/1.1");
    assert!(parse("GET /alive\r\n\r\n").is_err(), "HTTP/0.9 has no version at all");
}

#[test]
fn request_line_has_single_spaces_and_nothing_behind() {
    for line in [
        "GET  /alive HTTP/1.1",
        "GET /alive  HTTP/1.1",
        "GET /alive HTTP/1.1 ",
        "GET\t/alive HTTP/1.1",
        " GET /alive HTTP/1.1",
    ] {
        assert!(parse(format!("{line}\r\nHost: a\r\n\r\n")).is_err(), "{line:?}");
    }
}

#[test]
fn path_is_the_target_without_its_query() {
    for (target, expected) in [
        ("/", "/"),
        ("/push", "/push"),
        ("/push?", "/push"),
        ("/push?a=/b&c=?d", "/push"),
        ("//push", "//push"),
        ("/p%75sh", "/p%75sh"),
        ("/push/http://a/b", "/push/http://a/b"),
    ] {
        assert_eq!(path(&format!("POST {target} HTTP/1.1\r\nHost: a\r\n\r\n")), expected);
    }
}

#[test]
fn absolute_targets_are_accepted() {
    for (target, expected) in [
        ("http://a/push", "/push"),
        ("HTTP://a:8081/push?x", "/push"),
        ("https://[::1]:80/push", "/push"),
        ("http://a", ""),
        ("http://a?x=/push", ""),
    ] {
        assert_eq!(path(&format!("POST {target} HTTP/1.1\r\nHost: b\r\n\r\n")), expected, "{target}");
    }
}

#[test]
fn malformed_targets_are_refused() {
    for target in [
        "push",
        "*",
        "a:80",
        "http:/push",
        "http:///push",
        "ftp://a/push",
        "http://u@a/push",
        "/push#a",
        "/p\u{e9}sh",
        "/p\x7fsh",
        "?a",
        "://a/push",
    ] {
        assert!(parse(format!("POST {target} HTTP/1.1\r\nHost: a\r\n\r\n")).is_err(), "{target:?}");
    }
}

#[test]
fn asterisk_is_for_options_only() {
    assert_eq!(path("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), "*");
    assert_bad("GET * HTTP/1.1\r\nHost: a\r\n\r\n", "malformed request target");
}

#[test]
fn tunnels_are_refused() {
    assert_bad("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT is not for servers");
}
