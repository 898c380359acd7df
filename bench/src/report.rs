//! The figures as Markdown: medians over rounds, and ratios of rpxy-l4 to each other candidate.
//!
//! A ratio is the median of the ratios of single rounds, so that drift between rounds cancels out.

use std::fmt::Write as _;

use super::{
    candidate::Candidate,
    handovers::Handovers,
    workload::{Figures, Idle, Memory, Workload},
};

/// Outcomes of one candidate under one workload: one for each round.
#[derive(Debug, Clone)]
pub struct Row {
    /// Whose.
    pub candidate: Candidate,
    /// One for each round, or why there is none.
    pub rounds: Vec<Result<Figures, String>>,
}

/// The table of one workload.
pub fn table(workload: &Workload, rows: &[Row]) -> String {
    let units = workload.units;
    let latency = if units.latency { " p50 µs | p99 µs |" } else { "" };
    let rule = if units.latency { "---:|---:|" } else { "" };
    let mut text = format!(
        "## {}\n\n| candidate | {rate} | lowest to highest |{latency} proxy CPU {time} | rig's CPU {time} | \
         rate: {against} ÷ this | CPU: {against} ÷ this |\n|---|---:|---:|{rule}---:|---:|---:|---:|\n",
        workload.title,
        rate = units.rate,
        time = units.time,
        against = units.against.name(),
    );
    let reference = rows.iter().find(|row| row.candidate == units.against);
    for row in rows {
        let figures: Vec<&Figures> = row.rounds.iter().flatten().collect();
        let of = |value: fn(&Figures) -> f64| figures.iter().map(|figures| value(figures)).collect::<Vec<_>>();
        let rates = of(|figures| figures.rate);
        let Some(rate) = median(&rates) else {
            push(&mut text, &format!("| {} | failed |\n", row.candidate.name()));
            continue;
        };
        let times: Vec<f64> = figures.iter().filter_map(|figures| figures.proxy_time).collect();
        let (low, high) =
            rates.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
        let mut cells = vec![
            row.candidate.name().to_owned(),
            number(rate * units.rate_factor),
            format!("{} to {}", number(low * units.rate_factor), number(high * units.rate_factor)),
        ];
        if units.latency {
            cells.push(cell(median(&of(|figures| figures.p50_us))));
            cells.push(cell(median(&of(|figures| figures.p99_us))));
        }
        cells.push(cell(median(&times).map(|time| time * units.time_factor)));
        cells.push(cell(median(&of(|figures| figures.machine_time)).map(|time| time * units.time_factor)));
        cells.push(ratio(reference, row, |figures| Some(figures.rate)));
        let time: fn(&Figures) -> Option<f64> =
            if units.whole { |figures| Some(figures.machine_time) } else { |figures| figures.proxy_time };
        cells.push(ratio(reference, row, time));
        push(&mut text, &format!("| {} |\n", cells.join(" | ")));
    }
    for row in rows {
        let figures = || row.rounds.iter().flatten();
        let failures: u64 = figures().map(|figures| figures.failures).sum();
        let successes: u64 = figures().map(|figures| figures.successes).sum();
        if failures > 0 {
            let all = failures + successes;
            push(&mut text, &format!("\n{}: {failures} of {all} {}.\n", row.candidate.name(), units.failed));
        }
        let mut handovers = figures().filter_map(|figures| figures.handovers.clone()).peekable();
        if handovers.peek().is_some() {
            let sum = Handovers::sum(handovers);
            push(&mut text, &format!("\n{}: {sum}.\n", row.candidate.name()));
        }
    }
    text
}

/// The table of idle connections or flows.
pub fn memory_table(idle: &Idle, rows: &[(Candidate, Result<Memory, String>)]) -> String {
    let (slabs, rule) =
        if idle.kernel { (format!(" kernel, KiB a {} |", idle.one), "---:|") } else { Default::default() };
    let mut text = format!(
        "## {}\n\n\
         | candidate | {one}s | before, MiB | with all, MiB | KiB a {one} | rpxy-l4 ÷ this |{slabs}\n\
         |---|---:|---:|---:|---:|---:|{rule}\n",
        idle.title,
        one = idle.one,
    );
    let reference =
        rows.iter().find(|(candidate, _)| *candidate == Candidate::Rpxy).and_then(|(_, row)| row.as_ref().ok());
    for (candidate, memory) in rows {
        let Ok(memory) = memory else {
            push(&mut text, &format!("| {} | failed |\n", candidate.name()));
            continue;
        };
        let against = reference.filter(|_| memory.with > 0).map(|reference| reference.each() / memory.each());
        let mebibytes = |bytes: u64| number(bytes as f64 / f64::from(1 << 20));
        push(
            &mut text,
            &format!(
                "| {} | {} | {} | {} | {} | {} |{}\n",
                candidate.name(),
                memory.held,
                mebibytes(memory.before),
                mebibytes(memory.with),
                number(memory.each() / 1024.0),
                against.map_or_else(|| "-".to_owned(), |against| format!("{against:.2}")),
                if idle.kernel { format!(" {} |", number(memory.slabs_each() / 1024.0)) } else { String::new() },
            ),
        );
    }
    text
}

/// The middle value, the mean of the two middle ones of an even number; `None` of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) })
}

fn ratio(reference: Option<&Row>, row: &Row, value: fn(&Figures) -> Option<f64>) -> String {
    let of = |round: &Result<Figures, String>| round.as_ref().ok().and_then(value);
    let ratios: Vec<f64> = reference
        .map(|reference| reference.rounds.iter().zip(&row.rounds))
        .into_iter()
        .flatten()
        .filter_map(|(ours, theirs)| Some(of(ours)? / of(theirs)?))
        .collect();
    median(&ratios).map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}

/// Three significant digits, whole numbers in full.
fn number(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else if value >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

fn push(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _infallible = text.write_str(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{tcp, udp};

    /// The first workload of TCP, which has latencies.
    const PING: &Workload = &tcp::SUITE.workloads[0];

    fn figures(rate: f64, proxy_time: Option<f64>) -> Result<Figures, String> {
        Ok(Figures {
            rate,
            p50_us: 1.0,
            p99_us: 2.0,
            proxy_time,
            machine_time: 3e-6,
            failures: 0,
            successes: 9,
            handovers: None,
        })
    }

    #[test]
    fn the_median_is_the_middle() {
        // (name, values, expected)
        let rows = [
            ("of nothing", vec![], None),
            ("of one", vec![3.0], Some(3.0)),
            ("of three", vec![9.0, 1.0, 2.0], Some(2.0)),
            ("of four", vec![4.0, 1.0, 2.0, 9.0], Some(3.0)),
        ];
        for (name, values, expected) in rows {
            assert_eq!(median(&values), expected, "{name}");
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine is twice as fast in the second and third round; ratios of medians would show 0.5 or 2.
        let rows = [
            Row {
                candidate: Candidate::Rpxy,
                rounds: vec![figures(100.0, Some(1e-6)), figures(200.0, Some(1e-6)), Err("broken".to_owned())],
            },
            Row {
                candidate: Candidate::Haproxy,
                rounds: vec![figures(80.0, Some(2e-6)), figures(160.0, Some(2e-6)), figures(160.0, Some(2e-6))],
            },
            Row { candidate: Candidate::Nat, rounds: vec![figures(400.0, None); 3] },
            Row { candidate: Candidate::Sslh, rounds: vec![Err("broken".to_owned()); 3] },
        ];
        let text = table(PING, &rows);
        let lines: Vec<&str> = text.lines().skip(4).collect();
        assert_eq!(
            lines,
            [
                "| rpxy-l4 | 150 | 100 to 200 | 1.00 | 2.00 | 1.00 | 3.00 | 1.00 | 1.00 |",
                "| haproxy | 160 | 80.0 to 160 | 1.00 | 2.00 | 2.00 | 3.00 | 1.25 | 0.50 |",
                "| nat | 400 | 400 to 400 | 1.00 | 2.00 | - | 3.00 | 0.38 | - |",
                "| sslh | failed |",
            ]
        );
    }

    #[test]
    fn failed_operations_are_told() {
        let broken = |rate| figures(rate, None).map(|figures| Figures { failures: 1, ..figures });
        let rows = [
            Row { candidate: Candidate::Rpxy, rounds: vec![figures(1.0, None)] },
            Row { candidate: Candidate::Sslh, rounds: vec![broken(1.0), broken(2.0)] },
        ];
        for (workload, what) in [(PING, "connections ended early"), (&udp::SUITE.workloads[0], "datagrams were lost")] {
            let text = table(workload, &rows);
            assert_eq!(text.lines().last(), Some(format!("sslh: 2 of 20 {what}.").as_str()));
            assert!(!text.contains("\nrpxy-l4: "));
        }
    }

    #[test]
    fn memory_is_told_per_connection() {
        let memory = |with| Ok(Memory { held: 1024, before: 1 << 20, with, slabs: 0 });
        let rows = [
            (Candidate::Rpxy, memory(3 << 20)),
            (Candidate::Nginx, memory(5 << 20)),
            (Candidate::Sslh, Err("broken".to_owned())),
        ];
        let text = memory_table(&tcp::SUITE.idle, &rows);
        let lines: Vec<&str> = text.lines().skip(4).collect();
        assert_eq!(
            lines,
            [
                "| rpxy-l4 | 1024 | 1.00 | 3.00 | 2.00 | 1.00 |",
                "| nginx | 1024 | 1.00 | 5.00 | 4.00 | 0.50 |",
                "| sslh | failed |",
            ]
        );
    }
}
