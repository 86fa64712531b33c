//! `loadgen simulate`: one seed in this process, or many, each in a process of its own.

use std::env;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use loadgen::simulation::{Scenario, play};

use super::args::SimulateArgs;

/// Set in a process whose addresses are not random.
const FIXED: &str = "LOADGEN_SIMULATE_FIXED";

/// How long a seed may take, by the real clock. One that takes longer goes in circles.
const SEED_MAX: Duration = Duration::from_secs(60);

/// How often it is looked whether a seed has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Runs it; false when something was found.
pub(crate) fn run(args: &SimulateArgs) -> anyhow::Result<bool> {
    match args.seed {
        Some(seed) => one(seed, args),
        None => many(args),
    }
}

/// Plays one seed, in a process whose addresses are not random.
fn one(seed: u64, args: &SimulateArgs) -> anyhow::Result<bool> {
    if env::var_os(FIXED).is_none() {
        let failure = itself()?.args(env::args_os().skip(1)).env(FIXED, "1").exec();
        return Err(failure).context("cannot run this program again");
    }
    // SAFETY: it only asks.
    let personality = unsafe { libc::personality(0xffff_ffff) };
    if personality & libc::ADDR_NO_RANDOMIZE != libc::ADDR_NO_RANDOMIZE {
        writeln!(io::stderr(), "addresses are random here: the seed may do something else another time")?;
    }
    let mut scenario = Scenario::new(seed, args.length);
    scenario.thefts.extend(args.steal.map(|theft| theft.rule(&scenario.tenants)));
    if args.trace {
        writeln!(io::stderr(), "{scenario:#?}")?;
    }
    let verdict = play(&scenario, args.trace);
    writeln!(io::stdout(), "seed {seed}: {verdict}")?;
    Ok(verdict.holds())
}

/// This program, without random addresses. Where that is forbidden, a seed may do something else another time.
fn itself() -> anyhow::Result<Command> {
    let mut command = Command::new(env::current_exe().context("where is this program?")?);
    // SAFETY: between fork and exec this makes one system call, which allocates nothing.
    unsafe {
        command.pre_exec(|| {
            libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
            Ok(())
        });
    }
    Ok(command)
}

/// Plays seeds until the time is over.
fn many(args: &SimulateArgs) -> anyhow::Result<bool> {
    let (begun, next) = (Instant::now(), AtomicU64::new(args.from));
    let (found, played) = (AtomicBool::new(false), AtomicU64::new(0));
    let failure = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                while begun.elapsed() < args.duration && !(args.first && found.load(Ordering::Relaxed)) {
                    let is_over = || args.first && found.load(Ordering::Relaxed);
                    match child(next.fetch_add(1, Ordering::Relaxed), args.length, is_over) {
                        Ok(Some(holds)) => drop(found.fetch_or(!holds, Ordering::Relaxed)),
                        Ok(None) => return,
                        Err(error) => {
                            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            return;
                        }
                    }
                    played.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let (found, played) = (found.into_inner(), played.into_inner());
    let outcome = if found { "FAILED" } else { "all laws held" };
    writeln!(io::stdout(), "{played} seeds in {:.1} s: {outcome}", begun.elapsed().as_secs_f64())?;
    Ok(!found)
}

/// Plays a seed in a process of its own, and prints what it has found. False if it has found something, or was ended;
/// none if all `is_over` before.
fn child(seed: u64, length: Option<Duration>, is_over: impl Fn() -> bool) -> anyhow::Result<Option<bool>> {
    let mut command = itself()?;
    command.args(["simulate", "--seed", &seed.to_string()]).env(FIXED, "1");
    command.args(length.iter().flat_map(|length| ["--length".to_owned(), format!("{length:?}")]));
    let Some((output, is_late)) = output(&mut command, is_over)? else { return Ok(None) };
    let mut out = io::stdout().lock();
    out.write_all(&output.stdout)?;
    if is_late {
        writeln!(out, "seed {seed}: goes in circles\n  it has not ended within {SEED_MAX:?}")?;
    } else if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = said.lines().rev().take(12).collect();
        writeln!(out, "seed {seed}: {}", output.status)?;
        last.iter().rev().try_for_each(|line| writeln!(out, "  {line}"))?;
    }
    Ok(Some(output.status.success()))
}

/// What a process has printed, which must fit into a pipe, and whether it was killed for taking too long. None if it
/// was killed because all `is_over`.
fn output(command: &mut Command, is_over: impl Fn() -> bool) -> anyhow::Result<Option<(Output, bool)>> {
    let begun = Instant::now();
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot run this program")?;
    while child.try_wait()?.is_none() {
        let is_late = begun.elapsed() > SEED_MAX;
        if is_late || is_over() {
            child.kill()?;
            let output = child.wait_with_output()?;
            return Ok(is_late.then_some((output, true)));
        }
        #[expect(clippy::disallowed_methods, reason = "this thread has nothing else to do")]
        thread::sleep(LOOK);
    }
    Ok(Some((child.wait_with_output()?, false)))
}
