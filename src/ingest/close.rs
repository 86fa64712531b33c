//! Closes a connection so that its peer reads the last answer.

use std::time::{Duration, Instant};

use crate::io::buffers::Buffers;
use crate::io::deadline::Cut;
use crate::io::stream::Stream;
use crate::limits::{CLOSE_DISCARD_BYTES_MAX, CLOSE_DISCARD_MILLIS, HEAD_BUFFER_BYTES};

/// Reads and discards data for a moment after the last answer. Closing a socket with unread data sends a reset, which
/// would overtake the answer.
pub(super) async fn discard_before_close(stream: &mut Stream, buffers: &Buffers) {
    stream.finish_writing().await;
    stream.set_deadline(Instant::now() + Duration::from_millis(CLOSE_DISCARD_MILLIS), Cut::Both);
    let mut left = CLOSE_DISCARD_BYTES_MAX;
    let mut buffer = buffers.take(HEAD_BUFFER_BYTES);
    while left > 0 {
        buffer.clear();
        let (result, filled) = stream.read(buffer).await;
        buffer = filled;
        match result {
            Ok(n) if n > 0 => left = left.saturating_sub(n),
            _ => break,
        }
    }
    buffers.put(buffer);
}
