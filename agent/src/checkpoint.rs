//! Where to read again: what receivers have acknowledged, kept over restarts.

pub mod account;
pub mod ledger;
pub mod store;
