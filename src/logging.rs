//! Logs: `log/log_YYYYMMDDHH.MM.log` as operators of 2.x know them (times in UTC), as text or JSON, and to standard error when asked.
//!
//! A file is followed by the next every hour and when it is full. A line that the file does not take (the disk that is full is often
//! the one the logs are on) goes to standard error; losing a line never stops the node. Set up once by the command line; a panic anywhere is logged with its trace.

use std::backtrace::Backtrace;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use millrace_base::fault::{Fault, FaultKind};
use tracing::Subscriber;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{LogConfig, LogFormat};

const HOUR_S: u64 = 3_600;

/// Starts logging for the whole process; a second call is a fault.
pub fn start(config: &LogConfig) -> Result<(), Fault> {
    let file = match &config.directory {
        Some(directory) => {
            let writer = Mutex::new(LogFiles::open(directory, config.max_file_bytes)?);
            Some(layer(config.format, writer))
        }
        None => None,
    };
    let console = config.console.then(|| layer(config.format, Mutex::new(io::stderr())));
    tracing_subscriber::registry()
        .with(file)
        .with(console)
        .with(LevelFilter::from_level(config.level))
        .try_init()
        .map_err(|error| Fault::new(FaultKind::Operation, format!("cannot start logging: {error}"), "this is a bug; please report it"))?;
    log_panics();
    Ok(())
}

fn layer<S, W>(format: LogFormat, writer: Mutex<W>) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + Send + 'static,
{
    let plain = fmt::layer().with_ansi(false).with_thread_names(true).with_writer(writer);
    match format {
        LogFormat::Text => plain.boxed(),
        LogFormat::Json => plain.json().flatten_event(true).boxed(),
    }
}

/// A panic is a bug: its place and trace go to the log, and then to standard error as usual.
fn log_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(trace = %Backtrace::force_capture(), "{panic}");
        usual(panic);
    }));
}

/// The current log file and when to leave it.
struct LogFiles {
    directory: PathBuf,
    max_bytes: u64,
    file: File,
    name: String,
    bytes: u64,
    hour: u64,
}

impl LogFiles {
    fn open(directory: &Path, max_bytes: u64) -> Result<Self, Fault> {
        let now_s = now_s();
        let name = file_name(now_s);
        let open = || {
            fs::create_dir_all(directory)?;
            let file = append_to(&directory.join(&name))?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        };
        let (file, bytes) = open().map_err(|error: io::Error| {
            let what = format!("cannot write log files in {}: {error}", directory.display());
            Fault::new(FaultKind::Disk, what, "check free space and permissions, or set log.log_path in config.ini")
        })?;
        Ok(Self { directory: directory.to_owned(), max_bytes, file, name, bytes, hour: now_s / HOUR_S })
    }

    /// Moves on to the next file when the hour has changed or this one is full. A file that was full within its first minute stays in
    /// use until the minute ends, since the names count minutes.
    fn follow(&mut self, now_s: u64) -> io::Result<()> {
        let name = file_name(now_s);
        if (now_s / HOUR_S == self.hour && self.bytes < self.max_bytes) || name == self.name {
            return Ok(());
        }
        self.file = append_to(&self.directory.join(&name))?;
        self.bytes = self.file.metadata()?.len();
        (self.name, self.hour) = (name, now_s / HOUR_S);
        Ok(())
    }
}

impl Write for LogFiles {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // When the next file cannot be made, the old one goes on; when that fails as well, the line goes where it can still be read.
        let _ = self.follow(now_s());
        match self.file.write_all(line) {
            Ok(()) => self.bytes += line.len() as u64,
            Err(_) => {
                let _ = io::stderr().write_all(line);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `log_YYYYMMDDHH.MM.log`.
fn file_name(seconds: u64) -> String {
    let (year, month, day) = date_of(seconds / 86_400);
    let (hour, minute) = (seconds / HOUR_S % 24, seconds / 60 % 60);
    format!("log_{year:04}{month:02}{day:02}{hour:02}.{minute:02}.log")
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
fn date_of(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day is the last day of a year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_carry_the_date_hour_and_minute() {
        assert_eq!(file_name(0), "log_1970010100.00.log");
        assert_eq!(file_name(1_709_210_096), "log_2024022912.34.log");
        assert_eq!(file_name(4_102_444_799), "log_2099123123.59.log");
    }

    #[test]
    fn full_file_is_followed_by_the_next_minutes_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = LogFiles::open(directory.path(), 10).unwrap();
        let minute = now_s() / 60 * 60;
        files.write_all(b"more than ten bytes\n").unwrap();
        files.follow(minute + 120).unwrap();
        files.file.write_all(b"next\n").unwrap();
        assert_eq!(fs::read_to_string(directory.path().join(file_name(minute + 120))).unwrap(), "next\n");
    }

    #[test]
    fn directory_that_cannot_be_written_is_a_fault_with_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(LogFiles::open(&path.join("log"), 10).err().unwrap().to_string().contains("log.log_path"));
    }
}
