//! The way of a sample.

pub mod exposition;
