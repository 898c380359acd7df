//! The configuration contract, rule by rule: what is accepted and how it is understood, what is refused and where.

mod admin;
mod confine;
mod ebpf;
mod ech;
mod example;
mod global;
mod health;
mod include;
mod limits;
mod listen;
mod listeners;
mod load;
mod own;
mod protocols;
mod reference;
mod schema;
mod seed;
mod status;
mod targets;

use super::{Loaded, Problem, Severity, model::Config, parse};

/// Enough for a valid file. Rows add their text from line 3 on.
const BASE: &str = "listen_port = 8448\ntcp_target = [\"192.0.2.1:80\"]\n";

/// The configuration of a text that must be accepted.
#[track_caller]
fn accepted(text: &str) -> Config {
    match parse(text) {
        Ok(Loaded { config, .. }) => config,
        Err(problems) => panic!("refused:\n{text}\n{problems}"),
    }
}

/// The errors of a text that must be refused, each as `LINE: PATH`.
#[track_caller]
fn errors(text: &str) -> Vec<String> {
    let problems = parse(text).expect_err(text);
    problems.iter().filter(|problem| problem.severity == Severity::Error).map(position).collect()
}

/// The warnings of a text that must be accepted, each as `LINE: PATH`.
#[track_caller]
fn warnings(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(Loaded { warnings, .. }) => warnings.iter().map(position).collect(),
        Err(problems) => panic!("refused:\n{text}\n{problems}"),
    }
}

fn position(problem: &Problem) -> String {
    format!("{}: {}", problem.line, problem.path)
}

/// Rows of a name, what comes after [`BASE`], and the error that it must cause.
#[track_caller]
fn refuses(rows: &[(&str, &str, &str)]) {
    for (name, text, expected) in rows {
        assert_eq!(errors(&format!("{BASE}{text}")), [*expected], "{name}");
    }
}

/// Rows of a name, what comes after [`BASE`], and the warning that it must cause, if any.
#[track_caller]
fn warns(rows: &[(&str, &str, Option<&str>)]) {
    for (name, text, expected) in rows {
        let expected: Vec<&str> = expected.iter().copied().collect();
        assert_eq!(warnings(&format!("{BASE}{text}")), expected, "{name}");
    }
}
