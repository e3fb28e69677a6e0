//! "Did you mean": the known name nearest to a mistyped one. Called by the schema check of configuration files.

/// The name in `known` with the smallest edit distance to `name`, if it is near enough to be a slip: at most a third of the letters,
/// and at least two edits are always forgiven.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let allowed = (lower.chars().count() / 3).max(2);
    let best = known.into_iter().map(|candidate| (edit_distance(&lower, &candidate.to_lowercase()), candidate)).min()?;
    (best.0 <= allowed).then_some(best.1)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `from` into `to`.
fn edit_distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().take(100).collect(), to.chars().collect());
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=to.len()).collect();
    for i in 1..=from.len() {
        for j in 1..=to.len() {
            let replace = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_found_through_slips_and_nothing_is_guessed_for_other_words() {
        let known = ["jsonrpc_listen_port", "jsonrpc_listen_ip", "channel_listen_port", "id"];
        assert_eq!(nearest("jsonrpc_listenport", known), Some("jsonrpc_listen_port"));
        assert_eq!(nearest("jsonrcp_listen_ip", known), Some("jsonrpc_listen_ip"));
        assert_eq!(nearest("CHANNEL_LISTEN_PORT", known), Some("channel_listen_port"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", ["id"]), Some("id"));
    }

    #[test]
    fn edit_distance_counts_a_swap_as_one() {
        assert_eq!(edit_distance("ab", "ba"), 1);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
