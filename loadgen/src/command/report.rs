//! `loadgen report`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use loadgen::compare::Results;
use loadgen::report::{charts, page};

use super::args::PageArgs;

/// Writes the page and, if asked to, the charts; never false.
pub(crate) fn run(args: &PageArgs) -> anyhow::Result<bool> {
    let results =
        Results::load(&args.results).with_context(|| format!("cannot read {}", args.results.display()))?;
    let path = args.output.clone().unwrap_or_else(|| args.results.with_extension("html"));
    write(&path, &page(&results))?;
    let mut out = io::stdout();
    writeln!(out, "{}", path.display())?;
    if let Some(dir) = &args.svg {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        for chart in charts(&results) {
            let path = dir.join(format!("{}.svg", chart.name));
            write(&path, &chart.file())?;
            writeln!(out, "{}", path.display())?;
        }
    }
    Ok(true)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
