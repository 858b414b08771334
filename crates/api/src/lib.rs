//! The HTTP API of an agent: routes, types, OpenAPI document, and its client.

#![forbid(unsafe_code)]
