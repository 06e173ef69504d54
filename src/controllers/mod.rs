//! The controllers: views over the running state in the dialects that people's tools speak.

pub mod options;
