//! The text format 0.0.4 of Prometheus, made of OpenMetrics text.
//!
//! What differs: a counter's `# TYPE` and `# HELP` name the series with `_total`, and there is neither `# UNIT` nor
//! `# EOF`.

/// OpenMetrics text as Prometheus text 0.0.4.
pub(super) fn prometheus(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    // It comes before the type, which decides about its name.
    let mut help = None;
    for line in openmetrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        match comment.split_once(' ') {
            Some(("HELP", of)) => help = of.split_once(' '),
            Some(("TYPE", of)) => {
                let (name, kind) = of.split_once(' ').unwrap_or((of, "untyped"));
                let total = if kind == "counter" { "_total" } else { "" };
                if let Some((_, said)) = help.take_if(|(helped, _)| *helped == name) {
                    text.push_str(&format!("# HELP {name}{total} {said}\n"));
                }
                text.push_str(&format!("# TYPE {name}{total} {kind}\n"));
            }
            // `# UNIT` and `# EOF`.
            Some(_) | None => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_one_name_and_only_known_comments_stay() {
        let openmetrics = "# HELP a_bytes What a.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
                           a_bytes_total{b=\"# c\"} 1\n# HELP d D \"d\".\n# TYPE d gauge\nd 2\n# TYPE e histogram\n\
                           e_bucket{le=\"+Inf\"} 1\n# EOF\n";
        let expected = "# HELP a_bytes_total What a.\n# TYPE a_bytes_total counter\na_bytes_total{b=\"# c\"} 1\n\
                        # HELP d D \"d\".\n# TYPE d gauge\nd 2\n# TYPE e histogram\ne_bucket{le=\"+Inf\"} 1\n";
        assert_eq!(prometheus(openmetrics), expected);
    }
}
