//! The grammar of an instruction's arguments as nom combinators, and nothing else: text in, pieces with their offsets out. What
//! a piece means is decided elsewhere.

pub(crate) mod exec_form;
pub(crate) mod flags;
pub(crate) mod mount;
pub(crate) mod pairs;
pub(crate) mod words;

use std::borrow::Cow;
use std::ops::Range;

/// A piece of a text: what it says, and which bytes of the text it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) range: Range<usize>,
}

/// The offset of `part` in `whole`, of which it must be a slice.
fn offset(whole: &str, part: &str) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}
