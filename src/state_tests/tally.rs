//! What became of the cases, by fork: a table for people, JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::FORKS;

/// Failures that are described; the others are counted.
const SHOWN_FAILURES: usize = 1_000;

/// Why cases are not run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Skip {
    /// Their fork is older than Istanbul or younger than Cancun.
    OtherFork,
    /// See [`super::STORAGE_WITHOUT_ACCOUNT`].
    StorageWithoutAccount,
}

impl Skip {
    fn reason(self) -> &'static str {
        match self {
            Self::OtherFork => "of a fork before Istanbul or after Cancun",
            Self::StorageWithoutAccount => "a contract is created over storage without account, which no chain has (EIP-7610)",
        }
    }
}

/// The cases of one fork.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// As expected.
    pub passed: u64,
    /// Not as expected.
    pub failed: u64,
    /// Tests whose cases gave, as one block, the same on several threads as on one.
    pub batches: u64,
    /// Those that did not.
    pub failed_batches: u64,
    /// Not run, by reason.
    pub skipped: BTreeMap<Skip, u64>,
}

/// A case that failed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Failure {
    /// Its file.
    pub file: String,
    /// Name and position of the case, with its fork.
    pub case: String,
    /// What differs.
    pub reason: String,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// By the fork's name.
    pub forks: BTreeMap<String, Counts>,
    /// Files that hold no state tests.
    pub other_files: u64,
    /// The first failures, in order of their files.
    pub failures: Vec<Failure>,
    /// Files that could not be read.
    pub unreadable: u64,
}

impl Tally {
    /// A case went as expected.
    pub fn pass(&mut self, fork: &str) {
        self.of(fork).passed += 1;
    }

    /// A case did not.
    pub fn fail(&mut self, fork: &str, file: &Path, case: &str, reason: String) {
        self.of(fork).failed += 1;
        self.describe(file, format!("{fork} {case}"), reason);
    }

    /// The cases of a test gave the same as one block in parallel.
    pub fn pass_batch(&mut self, fork: &str) {
        self.of(fork).batches += 1;
    }

    /// They did not.
    pub fn fail_batch(&mut self, fork: &str, file: &Path, case: &str, reason: String) {
        self.of(fork).failed_batches += 1;
        self.describe(file, format!("{fork} {case}"), reason);
    }

    /// Cases were left out.
    pub fn skip(&mut self, fork: &str, why: Skip, cases: usize) {
        *self.of(fork).skipped.entry(why).or_default() += cases as u64;
    }

    /// A file was left out.
    pub fn skip_file(&mut self) {
        self.other_files += 1;
    }

    /// A file could not be read.
    pub fn fail_file(&mut self, file: &Path, reason: String) {
        self.unreadable += 1;
        self.describe(file, "the whole file".into(), reason);
    }

    fn describe(&mut self, file: &Path, case: String, reason: String) {
        if self.failures.len() < SHOWN_FAILURES {
            self.failures.push(Failure { file: file.display().to_string(), case, reason });
        }
    }

    fn of(&mut self, fork: &str) -> &mut Counts {
        self.forks.entry(fork.to_owned()).or_default()
    }

    /// Adds another part.
    pub fn add(&mut self, part: Self) {
        for (fork, counts) in part.forks {
            let sum = self.of(&fork);
            sum.passed += counts.passed;
            sum.failed += counts.failed;
            sum.batches += counts.batches;
            sum.failed_batches += counts.failed_batches;
            for (why, count) in counts.skipped {
                *sum.skipped.entry(why).or_default() += count;
            }
        }
        self.other_files += part.other_files;
        self.unreadable += part.unreadable;
        self.failures.extend(part.failures);
    }

    /// Brings what threads found into one order.
    pub fn finish(&mut self) {
        self.failures.sort_unstable();
        self.failures.truncate(SHOWN_FAILURES);
    }

    /// Cases run, and those among them that failed.
    pub fn totals(&self) -> (u64, u64) {
        self.forks.values().fold((0, 0), |(run, failed), counts| (run + counts.passed + counts.failed, failed + counts.failed))
    }

    /// Whether everything that was run went as expected.
    pub fn is_clean(&self) -> bool {
        self.totals().1 == 0 && self.unreadable == 0 && self.forks.values().all(|counts| counts.failed_batches == 0)
    }

    /// Forks in their order, those that are not run last.
    fn ordered(&self) -> Vec<(&str, &Counts)> {
        let known = FORKS.iter().filter_map(|(name, _)| self.forks.get_key_value(*name));
        let others = self.forks.iter().filter(|(name, _)| !FORKS.iter().any(|fork| fork.0 == *name));
        known.chain(others).map(|(name, counts)| (name.as_str(), counts)).collect()
    }

    /// A table with the failures behind it.
    pub fn table(&self) -> String {
        let mut text = String::from("fork                    run    passed    failed   skipped  as parallel blocks\n");
        let mut reasons: BTreeMap<Skip, u64> = BTreeMap::new();
        for (name, counts) in self.ordered() {
            let skipped: u64 = counts.skipped.values().sum();
            let run = counts.passed + counts.failed;
            let _ = writeln!(
                text,
                "{name:<18} {run:>8}  {:>8}  {:>8}  {skipped:>8}  {:>8} of {}",
                counts.passed,
                counts.failed,
                counts.batches,
                counts.batches + counts.failed_batches
            );
            for (why, count) in &counts.skipped {
                *reasons.entry(*why).or_default() += count;
            }
        }
        let (run, failed) = self.totals();
        let _ = writeln!(text, "{:<18} {run:>8}  {:>8}  {failed:>8}  {:>8}", "all", run - failed, reasons.values().sum::<u64>());
        for (why, count) in reasons {
            let _ = writeln!(text, "skipped {count}: {}", why.reason());
        }
        if self.other_files > 0 {
            let _ = writeln!(text, "skipped {} files that hold no state tests", self.other_files);
        }
        for Failure { file, case, reason } in &self.failures {
            let _ = writeln!(text, "FAILED {file}: {case}: {reason}");
        }
        text
    }

    /// The same for programs.
    pub fn json(&self, seconds: f64) -> Value {
        let fork = |(name, counts): (&str, &Counts)| {
            let skipped: serde_json::Map<_, _> =
                counts.skipped.iter().map(|(why, count)| (why.reason().to_owned(), json!(count))).collect();
            let run = counts.passed + counts.failed;
            (
                name.to_owned(),
                json!({"run": run, "passed": counts.passed, "failed": counts.failed, "skipped": skipped, "batches": counts.batches, "failedBatches": counts.failed_batches}),
            )
        };
        let forks: serde_json::Map<_, _> = self.ordered().into_iter().map(fork).collect();
        let failure = |failure: &Failure| json!({"file": failure.file, "case": failure.case, "reason": failure.reason});
        let failures: Vec<_> = self.failures.iter().map(failure).collect();
        json!({"forks": forks, "otherFiles": self.other_files, "unreadableFiles": self.unreadable, "failures": failures, "seconds": seconds})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_counts_what_ran_and_says_why_the_rest_did_not() {
        let mut tally = Tally::default();
        tally.pass("Cancun");
        tally.fail("Berlin", Path::new("a.json"), "t 0", "root".into());
        tally.skip("Frontier", Skip::OtherFork, 3);
        let mut all = Tally::default();
        all.add(tally);
        all.finish();
        let table = all.table();
        assert!(table.find("Berlin").unwrap() < table.find("Cancun").unwrap(), "{table}");
        assert!(table.contains("skipped 3: of a fork before Istanbul") && table.contains("FAILED a.json: Berlin t 0: root"), "{table}");
        assert_eq!((all.totals(), all.is_clean()), ((2, 1), false));
        assert_eq!(all.json(1.0)["forks"]["Frontier"]["skipped"]["of a fork before Istanbul or after Cancun"], 3);
    }
}
