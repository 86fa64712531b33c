//! `tenantry spool verify`: whether a spool is whole.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Args;

use super::folder::{Which, report_damages};
use crate::cli::capture::shown;
use crate::cli::output::print;
use crate::spool::{End, Segment};

/// The arguments of `tenantry spool verify`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    which: Which,
}

/// Runs the command.
pub(super) fn run(args: &VerifyArgs) -> Result<ExitCode, ExitCode> {
    let view = args.which.view()?;
    let (mut segments, mut parts, mut removals) = (0_u64, 0, 0);
    let mut text = String::new();
    for segment in view.segments() {
        segments += 1;
        parts += segment.parts;
        removals += segment.removals;
        text.push_str(&torn(segment).unwrap_or_default());
    }
    text.push_str(&format!("{segments} segments, {parts} records of parts, {removals} of removals\n"));
    print(&text);
    Ok(report_damages(&view))
}

/// Where a segment ends as it does after a crash.
fn torn(segment: &Segment) -> Option<String> {
    let End::Torn { at } = segment.end else { return None };
    let bytes = segment.bytes - at;
    Some(format!(
        "{}: ends early, with {bytes} bytes from byte {at} on that are not a whole record: normal after a crash, or \
         while it is written\n",
        shown(&segment.path)
    ))
}
