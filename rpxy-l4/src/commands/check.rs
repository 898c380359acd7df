//! `rpxy-l4 --check`.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use serde::Serialize;

use crate::{
    cli::RunArgs,
    config::{self, LoadError, Problem, Severity},
    escape,
};

/// Checks the configuration file. The verdict goes to the standard output, problems to the standard error; with `--json`
/// all of it goes to the standard output. The file fails if it cannot be used, with `--strict` also on a warning.
pub(crate) fn check(args: &RunArgs) -> ExitCode {
    let (file, loaded) = (&args.config, config::load(&args.config));
    let (problems, unreadable) = match &loaded {
        Ok(loaded) => (loaded.warnings.iter().collect(), None),
        Err(LoadError::Invalid { problems, .. }) => (problems.worst_first(), None),
        Err(error @ LoadError::Unreadable { .. }) => (Vec::new(), Some(error.to_string())),
    };
    let strict = args.strict && !problems.is_empty();
    let valid = loaded.is_ok() && !strict;
    // A terminal that is gone does not change the verdict.
    if args.json {
        drop(json(&mut io::stdout().lock(), file, &problems, unreadable.as_deref(), valid));
    } else {
        let (mut out, mut err) = (escape::Lines(io::stdout().lock()), io::stderr().lock());
        for problem in &problems {
            let text = problem.in_file(file).to_string();
            drop(writeln!(err, "{}: {}", problem.severity.name(), escape::line(&text)));
        }
        if let Some(error) = unreadable {
            drop(writeln!(err, "error: {}", escape::line(&error)));
        }
        match (&loaded, valid) {
            (Ok(_), true) => drop(writeln!(out, "{} is valid", file.display())),
            (Ok(_), false) => drop(writeln!(err, "error: warnings are errors here (--strict)")),
            (Err(_), _) => {}
        }
    }
    if valid { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line for each problem.
#[derive(Serialize)]
struct ProblemLine<'a> {
    severity: &'static str,
    file: &'a str,
    line: usize,
    column: usize,
    key: &'a str,
    message: &'a str,
    remedy: Option<&'a str>,
}

/// The last line.
#[derive(Serialize)]
struct Verdict<'a> {
    file: &'a str,
    valid: bool,
    errors: usize,
    warnings: usize,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

fn json(
    out: &mut dyn Write,
    file: &Path,
    problems: &[&Problem],
    unreadable: Option<&str>,
    valid: bool,
) -> io::Result<()> {
    let file = file.to_string_lossy();
    for problem in problems {
        let Problem { severity, file: included, path, line, column, message, remedy } = problem;
        let included = included.as_deref().map(Path::to_string_lossy);
        let line = ProblemLine {
            severity: severity.name(),
            file: included.as_deref().unwrap_or(&file),
            line: *line,
            column: *column,
            key: path,
            message,
            remedy: remedy.as_deref(),
        };
        writeln!(out, "{}", escape::json(serde_json::to_string(&line)?))?;
    }
    let warnings = problems.iter().filter(|problem| problem.severity == Severity::Warning).count();
    let errors = problems.len() - warnings + usize::from(unreadable.is_some());
    let verdict = Verdict { file: &file, valid, errors, warnings, error: unreadable };
    writeln!(out, "{}", escape::json(serde_json::to_string(&verdict)?))
}
