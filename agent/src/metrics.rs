//! The way of a sample.

pub mod containers;
pub mod discover;
pub mod exposition;
pub mod normalize;
pub mod outputs;
pub mod pull;
pub mod relabel;
pub mod scrape;
pub mod scraping;
pub mod series;
mod shares;
pub mod symbols;
pub mod workloads;
pub mod write_request;
