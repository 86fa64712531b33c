//! Replies to requests that are too large.
#![forbid(unsafe_code)]

use super::client::Reply;

impl Reply {
    /// Whether the upstream refused the request for its size.
    pub fn is_too_large(&self) -> bool {
        self.status == 413 || (self.status == 400 && is_mimirs_too_large(&self.message))
    }
}

/// Whether `message` is Mimir's error for a request that is too large, which some versions answer with 400
/// (pkg/distributor/errors.go, distributorMaxWriteMessageSizeErr, and its "Runbooks"). The whole message must match, as
/// another error may quote this text from a label's value.
fn is_mimirs_too_large(message: &[u8]) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let matches = || {
        let text = std::str::from_utf8(message).ok()?.trim_ascii_end();
        let text =
            text.strip_prefix("the incoming push request has been rejected because its message size")?;
        let (size, text) = text.split_once(" is larger than the allowed limit of ")?;
        let size = size.strip_prefix(" of ").and_then(|size| size.strip_suffix(" bytes")).map_or(size, |n| n);
        let (limit, text) = text.split_once(
            " bytes (err-mimir-distributor-max-write-message-size). To adjust the related limit, configure ",
        )?;
        let flag = text.strip_suffix(", or contact your service administrator.")?;
        let is_flag = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        let all = (size.is_empty() || number(size)) && number(limit) && flag.bytes().all(is_flag);
        all.then_some(())
    };
    matches().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIMIR: &str = "the incoming push request has been rejected because its message size of 300 bytes is larger than \
        the allowed limit of 200 bytes (err-mimir-distributor-max-write-message-size). To adjust the related limit, \
        configure -distributor.max-recv-msg-size, or contact your service administrator.";

    #[test]
    fn mimirs_error_says_that_a_request_is_too_large() {
        let without_size = MIMIR.replace(" of 300 bytes", "");
        for message in [MIMIR, &format!("{MIMIR}\n"), &without_size] {
            assert!(is_mimirs_too_large(message.as_bytes()), "{message}");
        }
    }

    #[test]
    fn a_quotation_of_mimirs_error_does_not() {
        let quoted = format!("received a series with an invalid value: '{MIMIR}'");
        let within = MIMIR.replace("of 300", "of x 300");
        let behind = format!("{MIMIR} series: 'x'");
        let flag = MIMIR.replace("-distributor.max-recv-msg-size", "x, y");
        for message in ["max-write-message-size", &quoted, &within, &behind, &flag, ""] {
            assert!(!is_mimirs_too_large(message.as_bytes()), "{message}");
        }
        assert!(!is_mimirs_too_large(b"\xff"));
    }
}
