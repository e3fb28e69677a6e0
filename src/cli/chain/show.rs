//! `millrace chain show`: what the certificates below a directory say and when they end.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use millrace_base::fault::{Fault, FaultKind};
use serde_json::{Value, json};

use crate::certificates::Facts;
use crate::certificates::facts::{self, WARN_DAYS};

/// See the module.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  millrace chain show                                  everything below ./nodes
  millrace chain show nodes/127.0.0.1/node0 --json     one JSON object a certificate, for scripts

Exit code 1 when a certificate cannot be read, has ended, or ends within --warn-days.")]
pub struct ShowArguments {
    /// A chain's directory, a node's, or any other with .crt files.
    #[arg(value_name = "DIR", default_value = "nodes")]
    directory: PathBuf,
    /// Days before its end from which on a certificate is complained about.
    #[arg(long, value_name = "DAYS", default_value_t = WARN_DAYS)]
    warn_days: i64,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Prints the list.
pub fn show(arguments: &ShowArguments) -> Result<ExitCode, Fault> {
    let files = facts::find(&arguments.directory);
    if files.is_empty() {
        let what = format!("there is no certificate (.crt) below {}", arguments.directory.display());
        return Err(Fault::new(FaultKind::Operation, what, "name the directory of a chain or of a node"));
    }
    let entries: Vec<Entry> = files.iter().flat_map(|file| entries(&arguments.directory, file, arguments.warn_days)).collect();
    let complaints = entries.iter().filter(|entry| entry.complaint.is_some()).count();
    let text = match arguments.json {
        true => entries.iter().map(|entry| format!("{}\n", entry.to_json())).collect(),
        false => {
            let lines: String = entries.iter().map(Entry::to_text).collect();
            let end = match complaints {
                0 => format!("{} certificates, none ends within {} days\n", entries.len(), arguments.warn_days),
                _ => format!("{complaints} of {} certificates need attention: see the lines with \"!\"\n", entries.len()),
            };
            lines + &end
        }
    };
    super::super::print(&text)?;
    Ok(if complaints == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One certificate, or a file that has none.
struct Entry {
    file: String,
    facts: Option<Facts>,
    complaint: Option<String>,
}

/// The certificates of a file: the leaf, and its issuers behind it.
fn entries(root: &Path, file: &Path, warn_days: i64) -> Vec<Entry> {
    let name = file.strip_prefix(root).unwrap_or(file).display().to_string();
    let chain = match facts::read_chain(file) {
        Ok(chain) => chain,
        Err(fault) => return vec![Entry { file: name, facts: None, complaint: Some(fault.to_string()) }],
    };
    let entry = |(position, facts): (usize, Facts)| {
        let complaint = match facts.days_left() {
            days @ ..0 => Some(format!("it ended {} days ago", -days)),
            days if days < warn_days => Some(format!("it ends in {days} days")),
            _ if facts.from_s > facts::now_s() => Some("it is not valid yet: compare this machine's clock".to_owned()),
            _ => None,
        };
        let complaint = complaint.map(|complaint| format!("{complaint}; `millrace chain renew` makes a new one"));
        let file = if position == 0 { name.clone() } else { format!("{name} [{position}]") };
        Entry { file, facts: Some(facts), complaint }
    };
    chain.into_iter().enumerate().map(entry).collect()
}

impl Entry {
    fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.file);
        if let Some(facts) = &self.facts {
            let organization = if facts.organization.is_empty() { String::new() } else { format!(" of {}", facts.organization) };
            let kind = if facts.is_authority { "authority, " } else { "" };
            text.push_str(&format!("    {kind}{}{organization}, issued by {}\n", facts.subject, facts.issuer));
            if let Some(id) = facts.node_id {
                text.push_str(&format!("    node {id}\n"));
            }
            text.push_str(&format!("    {} to {}, {} days left\n", date(facts.from_s), date(facts.until_s), facts.days_left()));
        }
        if let Some(complaint) = &self.complaint {
            text.push_str(&format!("  ! {complaint}\n"));
        }
        text
    }

    fn to_json(&self) -> Value {
        let facts = self.facts.as_ref();
        json!({
            "file": self.file,
            "subject": facts.map(|facts| &facts.subject),
            "organization": facts.map(|facts| &facts.organization),
            "issuer": facts.map(|facts| &facts.issuer),
            "nodeId": facts.and_then(|facts| facts.node_id).map(|id| id.to_string()),
            "authority": facts.map(|facts| facts.is_authority),
            "from": facts.map(|facts| date(facts.from_s)),
            "until": facts.map(|facts| date(facts.until_s)),
            "daysLeft": facts.map(Facts::days_left),
            "complaint": self.complaint,
        })
    }
}

/// A day in UTC, `2026-11-25`, from seconds since 1970 (days to civil date in the proleptic Gregorian calendar).
fn date(seconds: i64) -> String {
    let days = seconds.div_euclid(86_400) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::certificates::{Algorithm, Authority, KeySource, Validity};

    #[test]
    fn days_are_written_as_dates() {
        for (seconds, text) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_709_251_199, "2024-02-29"),
            (4_102_444_799, "2099-12-31"),
            (-1, "1969-12-31"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn certificates_near_their_end_and_damaged_ones_are_complained_about() {
        let scratch = tempfile::tempdir().unwrap();
        let write = |name: &str, days| {
            let root = Authority::root(name, Algorithm::P256, Validity::days(days), KeySource::New).unwrap();
            fs::write(scratch.path().join(name), root.credential.certificate).unwrap();
        };
        write("good.crt", 40);
        write("near.crt", 20);
        fs::write(scratch.path().join("torn.crt"), "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n").unwrap();
        let complaint = |name: &str| entries(scratch.path(), &scratch.path().join(name), WARN_DAYS).remove(0).complaint;
        assert_eq!(complaint("good.crt"), None);
        assert!(complaint("near.crt").unwrap().contains("it ends in"));
        assert!(complaint("torn.crt").unwrap().contains("not an X.509 certificate"));
        let arguments = |warn_days| ShowArguments { directory: scratch.path().to_owned(), warn_days, json: true };
        assert_eq!(show(&arguments(WARN_DAYS)).unwrap(), ExitCode::FAILURE);
        fs::remove_file(scratch.path().join("torn.crt")).unwrap();
        assert_eq!(show(&arguments(5)).unwrap(), ExitCode::SUCCESS);
        assert!(show(&ShowArguments { directory: "/nonexistent".into(), warn_days: 1, json: false }).is_err());
    }
}
