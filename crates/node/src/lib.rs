//! All that one node decides, as one value: events in, effects out.

#![forbid(unsafe_code)]
