//! What this runtime can do, in the specification's form.

use isolate::container::plan::Kind;
use serde_json::{Value, json};

use crate::plan::{
    ACTIONS, ARCHITECTURES, CAPABILITIES, FLAGS, KNOWN_OPTIONS, MEMORY_FLAGS, MEMORY_MODES, OPERATORS, VERSION,
};

pub(crate) fn print() {
    let names = |pairs: &[(&str, u32)]| -> Vec<Value> { pairs.iter().map(|(name, _)| json!(name)).collect() };
    let mut namespaces: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    namespaces.sort_unstable();
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": &KNOWN_OPTIONS[..],
        "linux": {
            "namespaces": namespaces,
            "capabilities": &CAPABILITIES[..],
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": names(&ACTIONS),
                "operators": OPERATORS,
                "archs": ARCHITECTURES,
                "knownFlags": names(&FLAGS),
                "supportedFlags": names(&FLAGS),
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "memoryPolicy": {"modes": names(&MEMORY_MODES), "flags": names(&MEMORY_FLAGS)},
            "netDevices": {"enabled": true},
            "mountExtensions": {"idmap": {"enabled": true}},
        },
        "annotations": {"rads-oci.version": env!("CARGO_PKG_VERSION")},
    });
    super::look::print(&super::look::pretty(&features));
}
