//! What a package has besides the program: manual pages and completions. `pages DIRECTORY YYYY-MM-DD` writes them;
//! `cargo xtask pages` calls it, and `dist` with that.
//!
//! Not a command of the program, which would carry the generators to everybody.

mod markdown;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// The documents whose text is in the manual, too.
const COMMAND_LINE: &str = include_str!("../../../docs/cli.md");
const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");
/// The parts of the first that clap does not know.
const PARTS: [&str; 3] = ["Exit statuses", "Signals", "Environment"];
/// Name of the manual.
const MANUAL: &str = "rpxy-l4 manual";

/// A file to be written.
#[derive(Debug)]
struct Page {
    path: PathBuf,
    text: String,
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [directory, date] = &arguments[..] else {
        return Err(io::Error::other("usage: pages DIRECTORY YYYY-MM-DD"));
    };
    for Page { path, text } in pages(date)?.into_iter().chain(completions()?) {
        let path = Path::new(directory).join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(directory)))?;
        fs::write(&path, text)?;
    }
    Ok(())
}

/// Manual pages of the program, of each command and of the configuration file, last changed on `date`.
fn pages(date: &str) -> io::Result<Vec<Page>> {
    let mut command = rpxy_l4::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(&command, date, &mut pages)?;
    pages.push(Page { path: "man/rpxy-l4.toml.5".into(), text: configuration(date) });
    Ok(pages)
}

/// Adds the pages of `command` and of those below it.
fn add(command: &Command, date: &str, pages: &mut Vec<Page>) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        add(below, date, pages)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command.clone()).date(date).source(format!("rpxy-l4 {version}")).manual(MANUAL);
    let path = Path::new("man").join(man.get_filename());
    let mut text = Vec::new();
    man.render(&mut text)?;
    let mut text = tidied(&String::from_utf8_lossy(&text));
    if name == "rpxy-l4" {
        for part in PARTS {
            text += &format!(".SH \"{}\"\n", part.to_uppercase());
            text += &markdown::roff(section(COMMAND_LINE, part), markdown::Tables::Lists);
        }
        text += ".SH \"FILES\"\n.TP\n/etc/rpxy\\-l4/config.toml\nThe configuration of the service.\n.TP\n\
                 /run/rpxy\\-l4/admin.sock\nWhere commands look for the daemon.\n";
        text += ".SH \"SEE ALSO\"\n.BR rpxy\\-l4.toml (5)\n.PP\n/usr/share/doc/rpxy\\-l4/\n";
    } else {
        text += ".SH \"SEE ALSO\"\n.BR rpxy\\-l4 (1)\n";
    }
    pages.push(Page { path, text });
    Ok(())
}

/// Without what a typesetter complains about: blanks at the end of a line, and a break where there is space anyway.
fn tidied(page: &str) -> String {
    let lines: Vec<&str> = page.lines().map(str::trim_end).collect();
    let is_space =
        |at: Option<usize>| at.and_then(|at| lines.get(at)).is_some_and(|line| line.is_empty() || *line == ".sp");
    let kept = lines.iter().enumerate();
    let kept =
        kept.filter(|(at, line)| **line != ".br" || !(is_space(at.checked_sub(1)) || is_space(at.checked_add(1))));
    kept.flat_map(|(_, line)| [*line, "\n"]).collect()
}

/// rpxy-l4.toml(5).
fn configuration(date: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let (_title, body) = CONFIGURATION.split_once('\n').unwrap_or_default();
    format!(
        ".TH rpxy\\-l4.toml 5 {date} \"rpxy\\-l4 {version}\" \"{MANUAL}\"\n.SH NAME\nrpxy\\-l4.toml \\- configuration file of \
         rpxy\\-l4\n.SH DESCRIPTION\n{}.SH \"SEE ALSO\"\n.BR rpxy\\-l4 (1)\n.PP\n\
         /usr/share/doc/rpxy\\-l4/examples/config.toml\n",
        markdown::roff(body, markdown::Tables::Keys)
    )
}

/// Completions, named as each shell looks for them.
fn completions() -> io::Result<Vec<Page>> {
    let files = [(Shell::Bash, "bash/rpxy-l4"), (Shell::Zsh, "zsh/_rpxy-l4"), (Shell::Fish, "fish/rpxy-l4.fish")];
    let text = |shell: Shell| {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut rpxy_l4::command(), "rpxy-l4", &mut text);
        String::from_utf8(text).map_err(io::Error::other)
    };
    files.into_iter().map(|(shell, path)| Ok(Page { path: path.into(), text: text(shell)? })).collect()
}

/// What stands under `## heading`.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let below = page.split("\n## ").find_map(|part| part.strip_prefix(heading)).unwrap_or_default();
    below.trim_start()
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use super::*;

    #[test]
    fn pages_are_typeset_without_a_complaint() {
        let directory = tempfile::tempdir().unwrap();
        for Page { path, text } in pages("2026-01-31").unwrap() {
            let file = directory.path().join(path.file_name().unwrap());
            fs::write(&file, text).unwrap();
            for (program, arguments) in [
                ("mandoc", &["-T", "lint", "-W", "warning"][..]),
                ("man", &["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]),
            ] {
                let Ok(done) = Process::new(program).args(arguments).arg(&file).env("MANROFFSEQ", "").output() else {
                    eprintln!("skipped: {program} is not installed; `cargo xtask setup` installs it");
                    continue;
                };
                // mandoc(1) complains on the standard output, man(1) typesets to it.
                let said = if program == "mandoc" { [done.stdout, done.stderr].concat() } else { done.stderr };
                let said = String::from_utf8_lossy(&said).into_owned();
                assert!(done.status.success() && said.is_empty(), "{program}, {}: {said}", path.display());
            }
        }
    }

    #[test]
    fn every_command_has_a_page_that_names_its_options() {
        fn check(command: &Command, pages: &[Page]) {
            for below in command.get_subcommands() {
                check(below, pages);
            }
            let name = format!("man/{}.1", command.get_display_name().unwrap_or(command.get_name()));
            let page = pages.iter().find(|page| page.path == Path::new(&name)).unwrap_or_else(|| panic!("{name}"));
            let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
            for long in arguments.filter_map(|argument| argument.get_long()) {
                let option = format!("\\-\\-{}", long.replace('-', "\\-"));
                assert!(page.text.contains(&option), "{name}: {option}");
            }
        }
        let mut command = rpxy_l4::command().disable_help_subcommand(true);
        command.build();
        check(&command, &pages("2026-01-31").unwrap());
    }

    #[test]
    fn the_page_of_the_file_has_every_key_of_the_schema() {
        fn keys(schema: &serde_json::Value, all: &mut Vec<String>) {
            if let Some(properties) = schema["properties"].as_object() {
                all.extend(properties.keys().cloned());
            }
            schema.as_object().into_iter().flatten().for_each(|(_, below)| keys(below, all));
            schema.as_array().into_iter().flatten().for_each(|below| keys(below, all));
        }
        let mut all = Vec::new();
        keys(&rpxy_l4::schema(), &mut all);
        assert!(all.len() > 90, "{all:?}");
        let page = configuration("2026-01-31");
        for key in all {
            assert!(page.contains(&format!("\\fB{key}\\fR")), "{key}");
        }
    }

    #[test]
    fn the_page_of_the_program_has_what_the_guide_has() {
        let pages = pages("2026-01-31").unwrap();
        let page = pages.iter().find(|page| page.path == Path::new("man/rpxy-l4.1")).unwrap();
        for expected in [".SH \"EXIT STATUSES\"", "SIGHUP", "\\fBRUST_LOG\\fR", "startup failed"] {
            assert!(page.text.contains(expected), "{expected}");
        }
    }

    #[test]
    fn completions_know_the_commands() {
        let all = completions().unwrap();
        assert_eq!(all.len(), 3);
        for page in &all {
            for word in ["healthcheck", "connections", "admin-socket"] {
                assert!(page.text.contains(word), "{}: {word}", page.path.display());
            }
        }
        let bash = all.iter().find(|page| page.path.starts_with("bash")).unwrap();
        let done = Process::new("bash").args(["-n", "-c", &bash.text]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}
