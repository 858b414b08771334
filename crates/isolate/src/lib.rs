//! The nursery and the walls around a star: namespaces, cgroups, mounts, seccomp; all the unsafe code.

