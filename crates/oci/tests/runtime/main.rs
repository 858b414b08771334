//! The real `rads-oci` with bundles made of one static program, as root and as an ordinary user.

mod support;

mod files;
mod lifecycle;
mod process;
mod suites;
mod turns;
