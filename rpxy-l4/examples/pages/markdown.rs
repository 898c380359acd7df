//! The Markdown of the guides as text for man(7): headings, paragraphs, tables, lists and code, and no more.

use std::iter::Peekable;

/// What rows of tables become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tables {
    /// The first cell, and what the second says of it.
    Lists,
    /// A key, its values, its default and what it is about.
    Keys,
}

/// `markdown` for man(7), from `.SH` down.
pub(super) fn roff(markdown: &str, tables: Tables) -> String {
    let mut out = String::new();
    // A heading has its own space; the first paragraph below needs no other.
    let mut fresh = true;
    let mut lines = markdown.lines().peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        if let Some(heading) = line.strip_prefix("## ") {
            out += &format!(".SH \"{}\"\n", plain(heading).to_uppercase());
            fresh = true;
        } else if let Some(heading) = line.strip_prefix("### ") {
            out += &format!(".SS \"{}\"\n", plain(heading));
            fresh = true;
        } else if line.starts_with("```") {
            let code = (&mut lines).take_while(|line| !line.starts_with("```"));
            let code: String = code.map(|line| format!("{}\n", guarded(&escaped(line)))).collect();
            out += &format!(".PP\n.nf\n{code}.fi\n");
            fresh = false;
        } else if line.starts_with('|') {
            // Below the head there is a rule.
            lines.next();
            while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
                out += &item(row, tables);
            }
            fresh = false;
        } else if let Some(first) = line.strip_prefix("- ") {
            out += &format!(".IP \\(bu 2\n{}\n", guarded(&inline(&paragraph(first, &mut lines))));
            fresh = false;
        } else {
            let text = guarded(&inline(&paragraph(line, &mut lines)));
            out += &format!("{}{text}\n", if fresh { "" } else { ".PP\n" });
            fresh = false;
        }
    }
    out
}

/// `first` and the lines that go on with it.
fn paragraph<'a>(first: &'a str, lines: &mut Peekable<impl Iterator<Item = &'a str>>) -> String {
    let mut text = vec![first.trim()];
    let begins_something =
        |line: &str| line.is_empty() || ["|", "#", "- ", "```"].iter().any(|mark| line.starts_with(mark));
    while let Some(line) = lines.next_if(|line| !begins_something(line)) {
        text.push(line.trim());
    }
    text.join(" ")
}

fn item(row: &str, tables: Tables) -> String {
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    match (tables, &cells[..]) {
        (Tables::Keys, [key, value, default, about]) => {
            let default = if default.is_empty() { String::new() } else { format!("; default: {}", inline(default)) };
            format!(".TP\n{}\n{}\n.br\n{}{default}\n", inline(key), guarded(&sentence(about)), guarded(&inline(value)))
        }
        (_, [first, rest @ ..]) => format!(".TP\n{}\n{}\n", inline(first), guarded(&inline(&rest.join("; ")))),
        (_, []) => String::new(),
    }
}

/// A cell that stands alone: with a capital.
fn sentence(cell: &str) -> String {
    let text = inline(cell);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => ".".to_owned(),
    }
}

/// Code in bold, emphasis in italics, links as their words.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            out += &format!("\\fB{}\\fR", escaped(part));
        } else {
            out += &emphasis(&escaped(&unlinked(part)));
        }
    }
    out
}

fn emphasis(text: &str) -> String {
    let bold = alternate(text, "**", "\\fB");
    alternate(&bold, "*", "\\fI")
}

/// Every second piece between `mark` in `font`.
fn alternate(text: &str, mark: &str, font: &str) -> String {
    let pieces = text.split(mark).enumerate();
    pieces.map(|(index, piece)| if index % 2 == 1 { format!("{font}{piece}\\fR") } else { piece.to_owned() }).collect()
}

/// `[words](target)` as words. Code in the words is between backquotes, so a link may begin in one piece and end in another.
fn unlinked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("](") {
        out += before;
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out += rest;
    out.replace('[', "")
}

/// Without marks.
fn plain(text: &str) -> String {
    escaped(&unlinked(text).replace('`', ""))
}

/// What is special to roff(7).
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('"', "\\(dq").replace('`', "\\(ga")
}

/// A line that begins with a dot or a quote would be a command.
fn guarded(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_becomes_one_of_man() {
        for (row, markdown, tables, expected) in [
            ("paragraphs", "One\ntwo.\n\nThree.", Tables::Lists, "One two.\n.PP\nThree.\n"),
            ("headings", "## A b\n\nC.\n\n### D\n\nE.", Tables::Lists, ".SH \"A B\"\nC.\n.SS \"D\"\nE.\n"),
            ("code", "See `a-b` and\n`c`.", Tables::Lists, "See \\fBa\\-b\\fR and \\fBc\\fR.\n"),
            ("links", "See [this](a.md#b) and [`that`](c.md).", Tables::Lists, "See this and \\fBthat\\fR.\n"),
            ("emphasis", "**Bold**, *own*.", Tables::Lists, "\\fBBold\\fR, \\fIown\\fR.\n"),
            ("a dot first", "`.a` b\n\n.c", Tables::Lists, "\\fB.a\\fR b\n.PP\n\\&.c\n"),
            ("list", "- one\n  two\n- three", Tables::Lists, ".IP \\(bu 2\none two\n.IP \\(bu 2\nthree\n"),
            ("block", "```toml\na = \"b\"\n.c\n```", Tables::Lists, ".PP\n.nf\na = \\(dqb\\(dq\n\\&.c\n.fi\n"),
            ("table", "| a | b |\n|---|---|\n| `A` | does b |", Tables::Lists, ".TP\n\\fBA\\fR\ndoes b\n"),
            (
                "keys",
                "| key | value | default | about |\n|---|---|---|---|\n| `k` | 1 to 2 | 1 | how many |\n| `l` | path | | where |",
                Tables::Keys,
                ".TP\n\\fBk\\fR\nHow many\n.br\n1 to 2; default: 1\n.TP\n\\fBl\\fR\nWhere\n.br\npath\n",
            ),
        ] {
            assert_eq!(roff(markdown, tables), expected, "{row}");
        }
    }
}
