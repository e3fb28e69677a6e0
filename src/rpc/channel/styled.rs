//! JSON over several lines as the reference node pushes receipts (`spec/client-protocol.md` 3.6, pitfall 33): tabs, a space on both sides
//! of a colon, the bracket of a nested value on a line of its own, empty values on one line.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// `value` over several lines, with a newline behind it.
pub fn to_vec(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(2_048);
    let layout = Layout { depth: 0, opening: None, behind_key: false };
    value.serialize(&mut Serializer::with_formatter(&mut out, layout)).expect("receipts have text keys and do not fail");
    out.push(b'\n');
    out
}

/// Where writing stands. An opening bracket is held back until it is known whether the value is empty.
struct Layout {
    depth: usize,
    opening: Option<&'static [u8]>,
    behind_key: bool,
}

impl Layout {
    fn new_line<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        out.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| out.write_all(b"\t"))
    }

    fn open(&mut self, bracket: &'static [u8]) -> io::Result<()> {
        self.opening = Some(bracket);
        Ok(())
    }

    /// Before an element or a key.
    fn element<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if let Some(bracket) = self.opening.take() {
            if self.behind_key {
                self.new_line(out)?;
            }
            out.write_all(bracket)?;
            self.depth += 1;
        }
        if !first {
            out.write_all(b",")?;
        }
        self.behind_key = false;
        self.new_line(out)
    }

    fn close<W: ?Sized + Write>(&mut self, out: &mut W, empty: &[u8], bracket: &[u8]) -> io::Result<()> {
        if self.opening.take().is_some() {
            return out.write_all(empty);
        }
        self.depth -= 1;
        self.new_line(out)?;
        out.write_all(bracket)
    }
}

impl Formatter for Layout {
    fn begin_array<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.open(b"[")
    }
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.element(out, first)
    }
    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"[]", b"]")
    }
    fn begin_object<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.open(b"{")
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.element(out, first)
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.behind_key = true;
        out.write_all(b" : ")
    }
    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"{}", b"}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_reference_nodes() {
        let value = serde_json::json!({"a": [], "b": {}, "c": [{"x": [1, 2], "y": "z"}, [3]], "d": null, "e": {"f": {"g": 1}}});
        let want = "{\n\t\"a\" : [],\n\t\"b\" : {},\n\t\"c\" : \n\t[\n\t\t{\n\t\t\t\"x\" : \n\t\t\t[\n\t\t\t\t1,\n\t\t\t\t2\n\t\t\t],\n\t\t\t\"y\" : \"z\"\n\t\t},\n\
                    \t\t[\n\t\t\t3\n\t\t]\n\t],\n\t\"d\" : null,\n\t\"e\" : \n\t{\n\t\t\"f\" : \n\t\t{\n\t\t\t\"g\" : 1\n\t\t}\n\t}\n}\n";
        assert_eq!(String::from_utf8(to_vec(&value)).unwrap(), want);
    }
}
