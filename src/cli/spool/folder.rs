//! The spool that a command looks at, and what is wrong with it.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cli::capture::shown;
use crate::cli::output::{EXIT_USAGE, print_error, report_mistakes};
use crate::config;
use crate::spool::{End, Segment, View};
use crate::text::escaped;

/// Which spool.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(super) struct Which {
    /// Take spool.dir from this YAML file; CT_ environment variables win over it
    // As for the server, the last one counts, and an empty name is none.
    #[arg(short, long, value_name = "FILE", overrides_with = "config", conflicts_with = "dir")]
    config: Option<OsString>,

    /// The folder of the spool; no configuration is read
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Which {
    /// The folder. The error is the exit code, of which the reason is printed.
    fn folder(&self) -> Result<PathBuf, ExitCode> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        let file = self.config.as_ref().filter(|name| !name.is_empty()).map(PathBuf::from);
        let plan = config::load(file.as_deref()).map_err(|mistakes| report_mistakes(&mistakes))?;
        plan.spool.map(|spool| spool.dir).ok_or_else(|| {
            print_error(&"spool.dir is not set: name the configuration by --config, or the folder by --dir");
            ExitCode::from(EXIT_USAGE)
        })
    }

    /// Reads the spool. The error is as above.
    pub(super) fn view(&self) -> Result<View, ExitCode> {
        View::read(&self.folder()?).map_err(|error| fail(&escaped(&error.to_string())))
    }
}

/// Reports why a command fails, and returns the exit code.
pub(super) fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    print_error(error);
    ExitCode::FAILURE
}

/// What is wrong with a segment, if anything is.
fn damage(segment: &Segment) -> Option<String> {
    let End::Damaged { at, why } = &segment.end else { return None };
    Some(format!("{}: damaged at byte {at}: {}", shown(&segment.path), escaped(why)))
}

/// Reports damaged segments, and returns the exit code.
pub(super) fn report_damages(view: &View) -> ExitCode {
    let damages: Vec<_> = view.segments().filter_map(damage).collect();
    damages.iter().for_each(|damage| print_error(damage));
    if damages.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The name of an upstream, as `explain` has it.
pub(super) fn upstream_name(name: &str) -> &str {
    if name.is_empty() { "main" } else { name }
}
