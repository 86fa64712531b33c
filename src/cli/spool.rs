//! `tenantry spool`: looks at a spool, and sends dead letters again.
//!
//! `ls`, `cat` and `verify` only read, without the lock, so they work while a server has the spool open.
#![forbid(unsafe_code)]

mod cat;
mod folder;
mod lines;
mod ls;
mod post;
mod replay;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

/// What to do with a spool.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub(super) enum SpoolCommand {
    /// List the streams of a spool, each a tenant's data for an upstream and destination
    ///
    /// Nothing is written, and a server may have the spool open. Exits with 1 if a segment is damaged: then the list
    /// may lack something.
    Ls(ls::LsArgs),

    /// Print the records of a spool, or those of a file of dead letters, each as a line of JSON
    ///
    /// The streams follow one another, each with its oldest record first. Times are milliseconds since 1970. Nothing is
    /// written, and a server may have the spool open. Exits with 1 if something cannot be read.
    Cat(cat::CatArgs),

    /// Check every checksum in a spool and decode every record
    ///
    /// A segment may end within a record, at which a crash has ended a write that was not acknowledged. Exits with 1 if
    /// something else is wrong. Nothing is written, and a server may have the spool open.
    Verify(verify::VerifyArgs),

    /// Send the parts in a file of dead letters again, the oldest first
    ///
    /// Each part is a request, one at a time, over plain HTTP. What was not taken goes into FILE.left, and the exit
    /// code is 1 if that is anything. After a failure that a retry may mend, the other parts of the same tenant are
    /// left, too, so that their order is kept. FILE itself stays as it is.
    Replay(replay::ReplayArgs),
}

/// Runs the command.
pub(super) fn run(command: &SpoolCommand) -> ExitCode {
    let done = match command {
        SpoolCommand::Ls(args) => ls::run(args),
        SpoolCommand::Cat(args) => cat::run(args),
        SpoolCommand::Verify(args) => verify::run(args),
        SpoolCommand::Replay(args) => replay::run(args),
    };
    done.unwrap_or_else(|code| code)
}
