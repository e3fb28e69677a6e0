//! CPU time of the nodes' processes on this machine, from `/proc`. For `--node-pid`.

use std::time::Duration;

/// Clock ticks of `/proc` a second: fixed by Linux's interface to programs, whatever the kernel's own rate.
const TICKS: u64 = 100;

/// User and system time that a process has used; `None` when there is none of this id.
pub fn cpu_time(process: u32) -> Option<Duration> {
    let line = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    parse(&line)
}

/// The 14th and 15th field; the name, in parentheses, may hold spaces.
fn parse(line: &str) -> Option<Duration> {
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added_up() {
        let line = "17 (a b) c) S 1 17 17 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 1 0 1 2 3";
        assert_eq!(parse(line), Some(Duration::from_secs(2)));
        assert_eq!(parse("17 (a"), None);
        assert!(cpu_time(std::process::id()).is_some());
    }
}
