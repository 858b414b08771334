//! The RADS library and the loop that performs what the machine asks: files, HTTP, SQLite, time.

#![forbid(unsafe_code)]
