//! What `-v` prints: the lines that 2.x scripts look for (`spec/client-protocol.md` 7.1), and our own version.

use crate::chain_build::templates::SUPPORTED_VERSION;

/// The version text, ending with a newline. `FISCO-BCOS Version` is the protocol version served; commit and time are set by release builds.
pub fn version_text() -> String {
    let profile = if cfg!(debug_assertions) { "Debug" } else { "Release" };
    format!(
        "FISCO-BCOS Version : {SUPPORTED_VERSION}\nMillrace Version   : {}\nBuild Time         : {}\nBuild Type         : {}/rustc/{profile}\nGit Branch         : {}\nGit Commit Hash    : {}\n",
        env!("CARGO_PKG_VERSION"),
        option_env!("MILLRACE_BUILD_TIME").unwrap_or("unknown"),
        std::env::consts::OS,
        option_env!("MILLRACE_BRANCH").unwrap_or("unknown"),
        option_env!("MILLRACE_COMMIT").unwrap_or("unknown"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_lines_start_with_the_names_that_scripts_look_for() {
        let text = version_text();
        for name in ["FISCO-BCOS Version :", "Build Time         :", "Build Type         :", "Git Branch         :", "Git Commit Hash    :"]
        {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} in {text}");
        }
    }
}
