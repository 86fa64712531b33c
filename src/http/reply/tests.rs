//! Our answers, parsed again.

use std::time::UNIX_EPOCH;

use super::*;
use crate::http::{Refusal, ResponseFraming, ResponseHead};

fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status,
        retry_after_secs: None,
        written: None,
        body: body.to_owned(),
        content: None,
        rejected: 0,
        allow: None,
        challenge: None,
        close: false,
    }
}

fn written(answer: &Answer, keep_alive: bool, head_only: bool) -> String {
    let mut out = Vec::new();
    write(&mut out, answer, "", keep_alive, head_only);
    String::from_utf8(out).unwrap()
}

#[test]
fn an_error_is_written_completely() {
    let answer = Answer { retry_after_secs: Some(8), close: true, ..answer(503, "no more\nroom") };
    assert_eq!(
        written(&answer, true, false),
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\n\
         Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
         Retry-After: 8\r\nConnection: close\r\n\r\nno more\nroom"
    );
}

#[test]
fn written_counts_are_sent_with_success_and_with_failure() {
    for status in [204, 200, 500] {
        let stored = Written { samples: 5, histograms: 0, exemplars: 12 };
        let text = written(&Answer { written: Some(stored), ..answer(status, "") }, true, false);
        assert!(text.contains("\r\nX-Prometheus-Remote-Write-Samples-Written: 5\r\n"), "{text}");
        assert!(text.contains("\r\nX-Prometheus-Remote-Write-Histograms-Written: 0\r\n"), "{text}");
        assert!(text.contains("\r\nX-Prometheus-Remote-Write-Exemplars-Written: 12\r\n"), "{text}");
    }
    assert!(!written(&answer(200, ""), true, false).contains("Written"));
}

#[test]
fn an_empty_body_has_a_length_and_no_type() {
    assert_eq!(
        written(&answer(200, ""), true, false),
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
    );
}

#[test]
fn no_content_has_no_length() {
    assert_eq!(
        written(&answer(204, "unheard"), true, false),
        "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n"
    );
}

#[test]
fn reset_content_has_no_body() {
    let text = written(&answer(205, "unheard"), true, false);
    assert!(text.contains("Content-Length: 0\r\n") && text.ends_with("\r\n\r\n"));
}

#[test]
fn head_gets_the_fields_without_the_body() {
    let full = written(&answer(404, "no such path"), true, false);
    let head = written(&answer(404, "no such path"), true, true);
    assert_eq!(full, format!("{head}no such path"));
    assert!(head.contains("Content-Length: 12\r\n"));
}

#[test]
fn length_counts_bytes() {
    assert!(written(&answer(400, "é…"), true, false).contains("Content-Length: 5\r\n"));
}

#[test]
fn connection_closes_when_either_side_wants_it() {
    for (keep_alive, close, expected) in
        [(true, false, "keep-alive"), (true, true, "close"), (false, false, "close"), (false, true, "close")]
    {
        let text = written(&Answer { close, ..answer(200, "") }, keep_alive, false);
        assert!(text.contains(&format!("\r\nConnection: {expected}\r\n")), "{text}");
    }
}

#[test]
fn method_not_allowed_lists_the_allowed_methods() {
    let answer = Answer::from(&Refusal::MethodNotAllowed { allow: "GET, HEAD" });
    assert!(written(&answer, true, false).contains("\r\nAllow: GET, HEAD\r\n"));
}

#[test]
fn answers_are_appended() {
    let mut out = written(&answer(200, ""), true, false).into_bytes();
    let first = out.len();
    write(&mut out, &answer(400, "no"), "", true, false);
    assert_eq!(&out[first..], written(&answer(400, "no"), true, false).as_bytes());
}

#[test]
fn continue_is_an_interim_response() {
    let (head, head_bytes) = ResponseHead::parse(CONTINUE, UNIX_EPOCH).unwrap().unwrap();
    assert_eq!((head.status, head_bytes), (100, CONTINUE.len()));
}

#[test]
fn every_answer_parses_back() {
    for status in (200..300).chain(400..600) {
        for (body, wait) in [("", None), ("reason", Some(30))] {
            let text = written(&Answer { retry_after_secs: wait, ..answer(status, body) }, true, false);
            let (head, head_bytes) = ResponseHead::parse(text.as_bytes(), UNIX_EPOCH).unwrap().unwrap();
            assert_eq!((head.status, head.retry_after_secs, head.keep_alive), (status, wait, true));
            let content = &text[head_bytes..];
            match head.framing {
                ResponseFraming::None => assert!(status == 204 && content.is_empty()),
                ResponseFraming::Length(length) => {
                    assert_eq!(length, u64::try_from(content.len()).unwrap());
                    assert!(content == body || status == 205);
                }
                framing => panic!("{framing:?}"),
            }
        }
    }
}
