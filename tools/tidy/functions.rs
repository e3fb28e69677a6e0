//! Lengths of functions.

use crate::source::{Source, item_body};

/// A function with a body.
pub struct Function {
    /// Its name.
    pub name: String,
    /// Where it begins.
    pub position: usize,
    /// Lines from `fn` to the closing brace.
    pub lines: usize,
}

/// Functions of a file, tests included.
pub fn functions(source: &Source) -> Vec<Function> {
    let mut found = Vec::new();
    for position in source.find("fn") {
        let rest = source.code[position + 2..].trim_start();
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue;
        }
        let Some(open) = item_body(&source.code, position).filter(|open| source.code.as_bytes()[*open] == b'{') else { continue };
        let lines = source.line(source.block_end(open) - 1) - source.line(position) + 1;
        found.push(Function { name, position, lines });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_whole_function() {
        let source = Source::new("trait T { fn none(&self) -> [u8; 3]; }\nfn two(f: fn(u8) -> u8) {\n}\nfn one() { 1 }\n".into());
        let found: Vec<(String, usize)> = functions(&source).into_iter().map(|function| (function.name, function.lines)).collect();
        assert_eq!(found, [("two".into(), 2), ("one".into(), 1)]);
    }
}
