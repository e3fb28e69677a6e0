//! (under construction by its owner)
pub mod system;
