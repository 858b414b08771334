//! Which star gets the next request: round robin or least connections, and what its outcome teaches.

#![forbid(unsafe_code)]
