//! `tenantry plan`: what a new configuration changes for captured requests, and for a running server.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::capture;
use super::login::LoginArgs;
use super::output::{EXIT_CHANGES, EXIT_USAGE, print, print_error, print_json};
use crate::auth::Denied;
use crate::config::{self, Plan};
use crate::explain::{Comparison, Goes, Reload, Sender};
use crate::text::escaped;

/// The arguments of `tenantry plan`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(super) struct PlanArgs {
    /// The configuration that runs
    #[arg(long, value_name = "FILE")]
    old: PathBuf,

    /// The configuration that is to run
    #[arg(long, value_name = "FILE")]
    new: PathBuf,

    /// Compare with the new configuration as after a restart, not as after a reload
    #[arg(long)]
    restart: bool,

    #[command(flatten)]
    login: LoginArgs,

    /// Series to show for each change
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(..=1000))]
    examples: u16,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// A directory with captured requests, as loadgen capture writes them
    #[arg(value_name = "DIR")]
    captures: PathBuf,
}

/// Runs the command.
pub(super) fn run(args: &PlanArgs) -> ExitCode {
    let (old, new) = match (config::load(Some(&args.old)), config::load(Some(&args.new))) {
        (Ok(old), Ok(new)) => (old, new),
        (old, new) => {
            [old, new].into_iter().filter_map(Result::err).for_each(|mistakes| print_error(&mistakes));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let bodies = match capture::list(&args.captures) {
        Ok(bodies) => bodies,
        Err(error) => return fail(&error),
    };
    let (reload, reloaded) = Reload::of(&old, &new);
    let target = if args.restart { &new } else { &reloaded };
    let senders = match senders(args, &old, target) {
        Ok(senders) => senders,
        Err(denied) => return fail(&format!("the access rules allow this sender nothing: {denied}")),
    };
    let mut comparison = Comparison::new(&old, target, senders, args.examples.into());
    let mut is_complete = true;
    for path in &bodies {
        match capture::read(path) {
            Ok(captured) => comparison.add(&captured.bytes, &captured.hints, captured.source.as_deref()),
            Err(error) => {
                print_error(&error);
                is_complete = false;
            }
        }
    }
    show(args, &reload, &comparison);
    match is_complete {
        false => ExitCode::FAILURE,
        true if comparison.has_moves() || reload.refused.is_some() => ExitCode::from(EXIT_CHANGES),
        true => ExitCode::SUCCESS,
    }
}

fn fail(error: &str) -> ExitCode {
    print_error(&error);
    ExitCode::FAILURE
}

fn senders(args: &PlanArgs, old: &Plan, new: &Plan) -> Result<[Sender; 2], Denied> {
    let login = || args.login.login();
    Ok([Sender::new(old, None, login())?, Sender::new(new, None, login())?])
}

fn show(args: &PlanArgs, reload: &Reload, comparison: &Comparison<'_>) {
    let after = if args.restart || reload.refused.is_some() { "restart" } else { "reload" };
    if args.json {
        let mut document = comparison.json();
        if let Value::Object(keys) = &mut document {
            keys.insert("reload".to_owned(), reload.json());
            keys.insert("after".to_owned(), json!(after));
        }
        print_json(&document);
        return;
    }
    let mut text = String::new();
    add_reload(&mut text, reload);
    let Comparison { requests, samples, unreadable, .. } = comparison;
    let series = comparison.series();
    add(
        &mut text,
        "compared",
        &format!("{requests} requests, {series} series, {samples} samples, after a {after}"),
    );
    if *unreadable > 0 {
        add(
            &mut text,
            "unreadable",
            &format!("{unreadable} requests: their format is unknown, or they are broken"),
        );
    }
    add_moves(&mut text, comparison);
    print(&text);
}

fn add(text: &mut String, subject: &str, line: &str) {
    text.push_str(&format!("{subject:<10} {}\n", escaped(line)));
}

fn add_reload(text: &mut String, reload: &Reload) {
    match &reload.refused {
        None => add(text, "reload", "a running server accepts it"),
        Some(mistakes) => {
            add(text, "reload", "a running server refuses it:");
            mistakes.to_string().lines().for_each(|mistake| add(text, "", mistake));
        }
    }
    if !reload.changed.is_empty() {
        add(text, "changes", &reload.changed.join(", "));
    }
    if !reload.until_restart.is_empty() {
        let keys = reload.until_restart.join(", ");
        add(text, "waits", &format!("{keys}: the new values wait for the next start"));
    }
}

fn add_moves(text: &mut String, comparison: &Comparison<'_>) {
    if !comparison.has_moves() {
        add(text, "result", "no series goes elsewhere");
        return;
    }
    for (from, to, moved) in comparison.moves() {
        text.push('\n');
        add(text, "moves", &format!("{} series, {} samples", moved.series, moved.samples));
        add(text, "  from", &place_of(from));
        add(text, "  to", &place_of(to));
        moved.examples.iter().for_each(|example| add(text, "  such as", example));
    }
    if comparison.beyond > 0 {
        add(text, "further", &format!("{} samples in changes that are not kept apart", comparison.beyond));
    }
    text.push('\n');
    for (tenant, (gains, loses)) in comparison.tenants() {
        add(text, "tenant", &format!("{tenant} gains {gains} series and loses {loses}"));
    }
}

fn place_of(goes: &Goes) -> String {
    match goes {
        Goes::To { tenant, place, without } => {
            let headers: Vec<_> =
                place.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            let removed = match without {
                Some(label) => format!(", without label {label}"),
                None => String::new(),
            };
            format!(
                "tenant {tenant}, at {} {} with {}{removed}",
                place.upstream,
                place.target,
                headers.join(", ")
            )
        }
        Goes::Refused { status: 0, reason, .. } => format!("refused: {reason}, which the sender is not told"),
        Goes::Refused { status, reason, whole_request: true } => {
            format!("refused with its whole request: {status}, {reason}")
        }
        Goes::Refused { status, reason, whole_request: false } => {
            format!("refused alone: {status}, {reason}")
        }
        Goes::Dropped => "dropped by tenant.map".to_owned(),
        Goes::Lost => "lost: Remote Write 1.0 cannot express it".to_owned(),
    }
}
