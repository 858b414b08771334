//! app.rads to AppSpec through a recording host, bundles by content, and readable differences.

#![forbid(unsafe_code)]
