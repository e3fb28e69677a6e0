//! Rules for Rust files: size, words that must not occur, places where threads and `unsafe` are allowed.

use std::collections::BTreeSet;

use crate::Finding;
use crate::functions::functions;
use crate::source::Source;
use crate::tree::Tree;

/// Lines of a file without tests: where to think of splitting, and where the check fails.
const FILE_LINES: usize = 500;
const FILE_LINES_MAX: usize = 600;

/// Lines of a function: the same two points.
const FUNCTION_LINES: usize = 70;
const FUNCTION_LINES_MAX: usize = 100;

/// Lines above `unsafe` in which its `// SAFETY:` may begin.
const SAFETY_LINES: usize = 6;

/// Files and folders where `unsafe` is allowed, each with its reason. Each needs a test under miri or against a safe twin.
const UNSAFE_ALLOWED: &[(&str, &str)] = &[];

/// Files and folders that may start threads, each with its reason. All other threads are stages of the pipeline.
const THREADS_ALLOWED: &[(&str, &str)] = &[
    ("pipeline/runtime", "runs the threads that the topology declares"),
    ("src/rpc/", "the gateway's own runtime, apart from the stages"),
    ("src/network/", "the event loops of the peer port, apart from the stages"),
    ("src/cli/run.rs", "waits for the end of standard input beside the signals"),
    ("src/cli/top.rs", "asks several nodes at once, so that one that does not answer does not hold up the screen"),
    ("src/reload.rs", "looks for the operator's signal files, apart from the stages"),
    ("tools/", "commands of their own, not part of the node"),
    ("benches/", "measure the node from outside"),
];

/// Where writing to standard output and standard error is the purpose.
const PRINTING_ALLOWED: &[&str] = &["src/main.rs", "src/cli.rs", "src/cli/", "tools/", "benches/"];

/// Test suites that other crates' tests call, so that no `#[cfg(test)]` can mark them.
const SHARED_SUITES: &[&str] = &["src/core/storage/conformance.rs"];

/// Words that must not occur, with what to do instead.
const NEVER: &[(&str, &str)] = &[
    ("todo!", "write the code"),
    ("unimplemented!", "write the code, or refuse with an error that says so"),
    ("dbg!", "remove it; use tracing for what should stay"),
];

/// Words that must not occur outside tests.
const OUTSIDE_TESTS: &[(&str, &str, &str)] = &[
    ("unwrap", ".unwrap()", "return the error, or expect(\"why this cannot fail\")"),
    ("channels", "unbounded()", "bound the queue and give the reason of its depth"),
    ("channels", "unbounded_channel()", "bound the queue and give the reason of its depth"),
    ("channels", "channel::unbounded", "bound the queue and give the reason of its depth"),
    ("channels", "mpsc::channel()", "use sync_channel or crossbeam's bounded"),
];

/// Checks every Rust file.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let sources: Vec<(&str, Source)> = tree.ending(".rs").filter_map(|path| Some((path, Source::new(tree.read(path)?)))).collect();
    let test_files = test_files(&sources);
    let mut findings = Vec::new();
    for (path, source) in &sources {
        if path.ends_with("/mod.rs") {
            findings.push(Finding::error(path, 1, "mod.rs", "name the file after its module, beside the module's folder"));
        }
        if !source.text.starts_with("//!") {
            let advice = "begin with //!: what the file is for, which invariant it keeps, who calls it";
            // The name of `foo/tests.rs` says most of it.
            let make = if path.ends_with("/tests.rs") { Finding::remark } else { Finding::error };
            findings.push(make(path, 1, "header", advice));
        }
        for (word, advice) in NEVER {
            findings.extend(source.find(word).map(|at| Finding::error(path, source.line(at), "unfinished", format!("{word} {advice}"))));
        }
        findings.extend(unsafe_code(path, source));
        if !is_test_path(path) && !test_files.contains(*path) {
            findings.extend(product_code(path, source));
        }
    }
    findings
}

fn product_code(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = sizes(path, source);
    let mut refuse = |rule, word: &str, advice: &str| {
        let places = source.find(word).filter(|at| !source.is_test(*at));
        findings.extend(places.map(|at| Finding::error(path, source.line(at), rule, format!("{word}: {advice}"))));
    };
    for (rule, word, advice) in OUTSIDE_TESTS {
        refuse(rule, word, advice);
    }
    if !is_allowed(path, PRINTING_ALLOWED) {
        for word in ["println!", "print!", "eprintln!", "eprint!"] {
            refuse("printing", word, "use tracing; only the command line and tools print");
        }
    }
    if !THREADS_ALLOWED.iter().any(|(place, _)| path.starts_with(place)) {
        for word in ["thread::spawn", "thread::Builder", "thread::scope"] {
            refuse("threads", word, "make it a stage of the topology, or list the file with its reason in tools/tidy/style.rs");
        }
    }
    findings
}

fn sizes(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = source.lines_without_tests();
    if lines > FILE_LINES {
        let make = if lines > FILE_LINES_MAX { Finding::error } else { Finding::remark };
        findings.push(make(
            path,
            1,
            "file size",
            format!("{lines} lines without tests: split it by purpose, about {FILE_LINES} are right"),
        ));
    }
    for function in functions(source) {
        if function.lines <= FUNCTION_LINES || source.is_test(function.position) {
            continue;
        }
        let make = if function.lines > FUNCTION_LINES_MAX { Finding::error } else { Finding::remark };
        let advice = format!("{} has {} lines: let it branch and children compute", function.name, function.lines);
        findings.push(make(path, source.line(function.position), "function size", advice));
    }
    findings
}

fn unsafe_code(path: &str, source: &Source) -> Vec<Finding> {
    let is_listed = UNSAFE_ALLOWED.iter().any(|(place, _)| path.starts_with(place));
    let lines: Vec<&str> = source.text.lines().collect();
    let has_reason = |line: usize| lines[line.saturating_sub(1 + SAFETY_LINES)..line].iter().any(|text| text.contains("SAFETY:"));
    let advice = |line| match (is_listed, has_reason(line)) {
        (false, _) => Some("unsafe code: find a safe way, or list the file with its reason in tools/tidy/style.rs"),
        (true, false) => Some("unsafe code: say above it in // SAFETY: why it is sound"),
        (true, true) => None,
    };
    let places = source.find("unsafe").map(|at| source.line(at));
    places.filter_map(|line| Some(Finding::error(path, line, "unsafe", advice(line)?))).collect()
}

fn is_allowed(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

/// Whether the name says that only tests compile it.
fn is_test_path(path: &str) -> bool {
    SHARED_SUITES.contains(&path)
        || path.ends_with("/tests.rs")
        || path.starts_with("tests/")
        || path.contains("/tests/")
        || path.ends_with("_tests.rs")
}

/// Files of modules that are declared for tests only, and what lies under them.
fn test_files(sources: &[(&str, Source)]) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for (path, source) in sources {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let stem = name.trim_end_matches(".rs");
        for module in source.test_modules() {
            let beside = format!("{folder}/{module}");
            let under = format!("{folder}/{stem}/{module}");
            let is_its =
                |other: &str| [&beside, &under].iter().any(|base| other == format!("{base}.rs") || other.starts_with(&format!("{base}/")));
            files.extend(sources.iter().map(|(other, _)| *other).filter(|other| is_its(other)).map(str::to_owned));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        product_code(path, &Source::new(text.to_owned())).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn words_are_refused_outside_tests_only() {
        assert_eq!(rules("src/a.rs", "fn f() { g().unwrap(); println!(); }"), ["unwrap", "printing"]);
        assert!(rules("src/a.rs", "#[cfg(test)]\nmod tests { fn f() { g().unwrap(); } }").is_empty());
        assert!(rules("src/a.rs", "fn f() { g().unwrap_or_default(); } // .unwrap()").is_empty());
    }

    #[test]
    fn threads_and_printing_have_their_places() {
        assert_eq!(rules("src/ledger/a.rs", "fn f() { std::thread::spawn(g); }"), ["threads"]);
        assert!(rules("pipeline/runtime/worker.rs", "fn f() { thread::spawn(g); }").is_empty());
        assert!(rules("src/cli/run.rs", "fn f() { println!(); }").is_empty());
    }

    #[test]
    fn unbounded_queues_are_refused_and_bounded_ones_are_not() {
        assert_eq!(rules("src/a.rs", "fn f() { unbounded(); mpsc::channel(); }"), ["channels", "channels"]);
        assert!(rules("src/a.rs", "fn f() { bounded(3); mpsc::channel(4); oneshot::channel(); }").is_empty());
    }

    #[test]
    fn long_files_and_functions_are_reported_then_refused() {
        let long = |lines| format!("fn f() {{\n{}}}\n", "x();\n".repeat(lines));
        let weights = |text: String| -> Vec<crate::Weight> {
            sizes("src/a.rs", &Source::new(text)).into_iter().map(|finding| finding.weight).collect()
        };
        assert!(weights(long(60)).is_empty());
        assert_eq!(weights(long(80)), [crate::Weight::Remark]);
        assert_eq!(weights(long(101)), [crate::Weight::Error]);
        assert_eq!(weights("x();\n".repeat(550)), [crate::Weight::Remark]);
        assert_eq!(weights("x();\n".repeat(601)), [crate::Weight::Error]);
    }

    #[test]
    fn unsafe_code_is_refused_where_it_is_not_listed() {
        assert_eq!(unsafe_code("src/a.rs", &Source::new("#![deny(unsafe_code)]\nunsafe { f() }".into())).len(), 1);
    }

    #[test]
    fn files_of_test_modules_are_tests() {
        let sources = [
            ("src/base/a.rs", Source::new("#[cfg(test)]\nmod fake;\n".into())),
            ("src/base/a/fake.rs", Source::new(String::new())),
            ("src/base/a/other.rs", Source::new(String::new())),
        ];
        assert_eq!(test_files(&sources).into_iter().collect::<Vec<_>>(), ["src/base/a/fake.rs"]);
    }
}
