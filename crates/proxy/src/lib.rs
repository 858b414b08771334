//! The data plane: accepts HTTP and TCP, asks the balancer, reaches a star through its door.

#![forbid(unsafe_code)]
