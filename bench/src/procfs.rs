//! Processor time and memory of processes and of the machine, from /proc (proc(5)).

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, ensure};

/// Unit of processor times in /proc. Linux shows hundredths of a second on every architecture it is built for today.
const TICK: Duration = Duration::from_millis(10);

/// Processor time, user and system, that `root` and its descendants have used, ended and awaited ones included.
///
/// # Errors
///
/// When `root` has ended.
pub fn processor_time(root: u32) -> anyhow::Result<Duration> {
    let mut ticks = 0;
    for pid in family(root)? {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => ticks += process_ticks(&stat).with_context(|| format!("/proc/{pid}/stat"))?,
            // A child that has just ended is in its parent's figures.
            Err(error) => ensure!(pid != root, "the candidate has ended: {error}"),
        }
    }
    Ok(TICK * ticks)
}

/// Memory of `root` and its descendants, in bytes: the proportional set size, so that shared pages count once.
///
/// # Errors
///
/// When a process ends meanwhile.
pub fn memory(root: u32) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for pid in family(root)? {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        bytes += pss_bytes(&text).with_context(|| path)?;
    }
    Ok(bytes)
}

/// Processor time of this program, of all that it has started, and of the kernel threads that take over what is left of
/// soft interrupts. Others on the machine do not count; soft interrupts do, as system time of whom they interrupt.
///
/// # Errors
///
/// When /proc is not mounted.
pub fn rig_time() -> anyhow::Result<Duration> {
    let mut time = processor_time(std::process::id())?;
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("ksoftirqd/") {
            let stat = fs::read_to_string(entry.path().join("stat"))?;
            time += TICK * process_ticks(&stat).context("stat of ksoftirqd")?;
        }
    }
    Ok(time)
}

/// Memory that the kernel has in slabs, in bytes, of the whole machine.
///
/// # Errors
///
/// When /proc is not mounted.
pub fn slabs() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:")).context("Slab in /proc/meminfo")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>().context("Slab in /proc/meminfo")? * 1024)
}

/// Process ids of `root` and its descendants.
fn family(root: u32) -> anyhow::Result<BTreeSet<u32>> {
    let mut known = BTreeSet::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        if !known.insert(pid) {
            continue;
        }
        // Children belong to the thread that made them.
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
            ensure!(pid != root, "the candidate has ended");
            continue;
        };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            open.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    Ok(known)
}

/// utime, stime, cutime and cstime: fields 14 to 17 of /proc/pid/stat. The name before may hold spaces and brackets.
fn process_ticks(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    // The first field after the name is number 3.
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    (0..4).try_fold(0, |sum, _| Some(sum + fields.next()?.parse::<u32>().ok()?))
}

fn pss_bytes(smaps_rollup: &str) -> Option<u64> {
    let line = smaps_rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_counts_the_process_and_its_awaited_children() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 9 8 7 6 100 20 3 4 20 0 2 0 5 0 0";
        assert_eq!(process_ticks(stat), Some(127));
        assert_eq!(process_ticks("7 (a) S 1"), None);
    }

    #[test]
    fn memory_is_the_proportional_set_size() {
        let text = "55d0-7ffe ---p 00000000 00:00 0 [rollup]\nRss:  900 kB\nPss:   12 kB\nPss_Dirty: 3 kB\n";
        assert_eq!(pss_bytes(text), Some(12 * 1024));
        assert_eq!(pss_bytes("Rss: 1 kB\n"), None);
    }

    #[test]
    fn a_family_includes_children_of_children() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sh -c 'echo up; read line; :' ; :"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(shell.stdout.as_mut().unwrap()), &mut line).unwrap();
        let found = family(shell.id()).unwrap();
        assert!(found.contains(&shell.id()) && found.len() == 2, "{found:?}");
        assert!(memory(shell.id()).unwrap() > 0);
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(processor_time(shell.id()).is_err());
    }
}
