//! What is accepted and what is refused, and what becomes of it.

use super::*;
use isolate::container::plan::{Attributes, Source};
use isolate::container::{Lacking, Limits};
use serde_json::{Value, json};

fn at() -> Circumstances<'static> {
    Circumstances { bundle: Path::new("/bundle"), id: "one", uid: 0, apparmor: false, selinux: false }
}

fn base() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"args": ["sh"], "cwd": "/"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "pid"}]},
    })
}

/// The base with one value put at a path such as `/process/cwd`.
fn with(path: &str, value: Value) -> Value {
    let mut config = base();
    let mut place = &mut config;
    for part in path.trim_start_matches('/').split('/') {
        if place.is_null() {
            *place = json!({});
        }
        place = &mut place[part];
    }
    *place = value;
    config
}

fn judge(config: &Value) -> Result<Bundle, String> {
    let spec = Spec::parse(config.to_string().as_bytes())?;
    bundle(&spec, at())
}

#[track_caller]
fn refused(path: &str, value: Value, reason: &str) {
    let config = with(path, value);
    match judge(&config) {
        Ok(_) => panic!("{config} is accepted"),
        Err(said) => assert!(said.contains(reason) && !said.contains('\n'), "said: {said}"),
    }
}

#[track_caller]
fn accepted(path: &str, value: Value) -> Bundle {
    judge(&with(path, value)).unwrap()
}

#[test]
fn unknown_properties_are_ignored_and_nulls_are_nothing() {
    accepted("/never/heard/of", json!([1]));
    accepted("/linux/seccomp", Value::Null);
    accepted("/mounts", Value::Null);
    let bundle = accepted("/annotations", json!({"any": ""}));
    assert_eq!(bundle.plan.root, Path::new("/bundle/rootfs"));
    assert_eq!(bundle.groups, GroupPath::Relative("one".into()));
}

#[test]
fn what_is_wrong_is_named() {
    refused("/ociVersion", json!("invalid"), "`ociVersion`");
    refused("/ociVersion", json!("2.0.0"), "only 1.x");
    refused("/ociVersion", json!("1.02.0"), "`ociVersion`");
    refused("/ociVersion", json!(""), "missing");
    refused("/root", Value::Null, "`root`");
    refused("/root/path", json!("a\0b"), "NUL");
    refused("/process/args", json!([]), "`process.args`");
    refused("/process/args", json!(["a\0"]), "NUL");
    refused("/process/args", json!("sh"), "invalid type");
    refused("/process/cwd", json!("relative"), "absolute");
    refused("/process/cwd", json!(""), "`process.cwd`");
    refused("/process/env", json!(["NOTHING"]), "NAME=value");
    refused("/process/env", json!(["=x"]), "NAME=value");
    refused("/process/user", json!({"uid": -1}), "invalid value");
    refused("/process/user", json!({"umask": 0o7777}), "umask");
    for user in [
        json!({"uid": u32::MAX, "gid": 0}),
        json!({"uid": 0, "gid": u32::MAX}),
        json!({"uid": 0, "gid": 0, "additionalGids": [u32::MAX]}),
    ] {
        refused("/process/user", user, "nobody's id");
    }
    refused("/process/oomScoreAdj", json!(1001), "oomScoreAdj");
    refused("/process/apparmorProfile", json!("x"), "AppArmor");
    refused("/process/selinuxLabel", json!("x"), "SELinux");
    refused("/process/rlimits", json!([{"type": "RLIMIT_TEST", "soft": 1, "hard": 1}]), "RLIMIT_TEST");
    refused("/process/rlimits", json!([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]), "above the hard");
    let twice = json!({"type": "RLIMIT_CPU", "soft": 1, "hard": 1});
    refused("/process/rlimits", json!([twice, twice]), "twice");
    refused("/process/scheduler", json!({"policy": "SCHED_X"}), "SCHED_X");
    refused("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}), "priority");
    refused("/hostname", json!("x".repeat(65)), "`hostname`");
    refused("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}]), "twice");
    refused("/linux/namespaces", json!([{"type": "x"}]), "kind of namespace");
    refused("/linux/namespaces", json!([{"type": "pid", "path": "relative"}]), "absolute");
    refused("/linux/namespaces", json!([{"type": "user"}]), "uidMappings");
    refused("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "`user` namespace");
    refused("/linux/maskedPaths", json!(["relative"]), "absolute");
    refused("/linux/cgroupsPath", json!("/a/../b"), "..");
    refused("/linux/sysctl", json!({"kernel.panic": "1"}), "whole machine");
    refused("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}), "`network` namespace");
    refused("/linux/sysctl", json!({"net.ipv4/../../kernel": "1"}), "not a sysctl");
    refused("/linux/rootfsPropagation", json!("loud"), "no propagation");
    refused("/linux/devices", json!([{"path": "/dev/x", "type": "z"}]), "kind of device");
    refused("/linux/devices", json!([{"path": "/dev/x", "type": "c", "major": -1}]), "number");
    refused("/linux/intelRdt", json!({"closID": "x"}), "intelRdt");
    refused("/linux/memoryPolicy", json!({"nodes": "0-7"}), "memoryPolicy.mode");
    refused("/linux/memoryPolicy", json!({"mode": "INTERLEAVE"}), "`INTERLEAVE` is unknown");
    refused("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["x"]}), "`x` is unknown");
    refused("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}), "list of nodes");
    refused("/linux/netDevices", json!({"eth0": {}}), "`network` namespace");
    refused("/linux/personality", json!({"domain": "HPUX"}), "personality");
    refused("/linux/timeOffsets", json!({"monotonic": {"secs": 1}}), "time");
    refused("/hooks", json!({"prestart": [{"path": "relative"}]}), "absolute");
    refused("/hooks", json!({"poststop": [{"path": "/x", "timeout": 0}]}), "more than 0");
    refused("/mounts", json!([{"destination": "/", "type": "tmpfs"}]), "root itself");
    refused("/mounts", json!([{"destination": "/a", "type": "bind"}]), "`source`");
    refused("/mounts", json!([{"destination": "/a"}]), "`type`");
    refused("/mounts", json!([{"destination": "/a", "type": "proc", "options": ["tmpcopyup"]}]), "tmpcopyup");
    refused("/mounts", json!([{"destination": "/a", "type": "tmpfs", "options": ["idmap"]}]), "mapped ids");
}

#[test]
fn without_namespaces_of_its_own_nothing_of_the_hosts_is_touched() {
    let mut config = base();
    config["linux"]["namespaces"] = json!([]);
    judge(&config).unwrap();
    for (field, value) in [("maskedPaths", json!(["/proc/kcore"])), ("readonlyPaths", json!(["/proc/sys"]))] {
        let mut config = config.clone();
        config["linux"][field] = value;
        // They are mounts of its own root, not of the host's.
        judge(&config).unwrap();
    }
    config["hostname"] = json!("name");
    let judged = judge(&config).unwrap();
    assert_eq!(judged.plan.hostname, None);
    assert!(judged.warnings[0].contains("`uts` namespace"), "{:?}", judged.warnings);
}

#[test]
fn unknown_capabilities_are_warnings_and_unknown_system_calls_notes() {
    let bundle =
        accepted("/process/capabilities", json!({"bounding": ["CAP_KILL", "TEST_CAP"], "effective": ["CAP_KILL"]}));
    assert_eq!(bundle.plan.process.capabilities.bounding, 1 << 5);
    assert_eq!(bundle.warnings, ["`process.capabilities`: there is no variant for TEST_CAP"]);
    let call = json!({"names": ["getcwd", "never_heard_of"], "action": "SCMP_ACT_ERRNO"});
    let bundle = accepted("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call]}));
    assert_eq!(bundle.notes, ["system call `never_heard_of` is not known here"]);
    assert!(bundle.plan.process.filter.is_some());
}

#[test]
fn filters_that_make_no_sense_are_refused() {
    let check = |value: Value, reason: &str| refused("/linux/seccomp", value, reason);
    check(json!({"defaultAction": "X"}), "`X` is unknown");
    check(json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "defaultAction");
    check(json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}), "takes no error number");
    check(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}), "flags");
    check(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X"]}), "SCMP_ARCH_X");
    let call = |call: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call]});
    check(call(json!({"names": [], "action": "SCMP_ACT_ERRNO"})), "names");
    check(call(json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"})), "write");
    check(call(json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})), "listenerPath");
    let arg = |arg: Value| call(json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [arg]}));
    check(arg(json!({"index": 6, "op": "SCMP_CMP_EQ"})), "index");
    check(arg(json!({"index": 0, "op": "X"})), "op");
}

#[test]
fn mount_options_become_attributes_in_their_order() {
    let mount = |options: Value| {
        let mounts = json!([{"destination": "/a", "source": "from", "type": "bind", "options": options}]);
        accepted("/mounts", mounts).plan.mounts.remove(0)
    };
    let ro = Attributes::READ_ONLY;
    assert_eq!(mount(json!(["ro"])).attributes, Attributes { set: ro, clear: 0 });
    assert_eq!(mount(json!(["ro", "rw"])).attributes, Attributes { set: 0, clear: ro });
    assert_eq!(mount(json!(["rw", "ro"])).attributes, Attributes { set: ro, clear: 0 });
    assert_eq!(mount(json!(["rro"])).recursive_attributes, Attributes { set: ro, clear: 0 });
    let quiet = mount(json!(["noatime", "nosuid"])).attributes;
    assert_eq!(quiet.set, Attributes::NO_ACCESS_TIME | Attributes::NO_SUID);
    assert_eq!(quiet.clear, Attributes::ACCESS_TIME);
    assert_eq!(mount(json!(["rshared"])).propagation, [Propagation::Shared { recursive: true }]);
    let bind = |recursive| Source::Bind { path: "/bundle/from".into(), recursive, id_map: None };
    assert_eq!(mount(json!(["rbind"])).source, bind(true));
    assert_eq!(mount(json!(["bind"])).source, bind(false));
    for option in KNOWN_OPTIONS.iter().filter(|option| !["idmap", "ridmap", "remount", "tmpcopyup"].contains(option)) {
        let bundle = accepted("/mounts", json!([{"destination": "/a", "source": "x", "options": ["bind", option]}]));
        let of_the_file_system = ["dirsync", "iversion", "lazytime", "mand", "nolazytime", "nomand", "sync"];
        assert_eq!(bundle.warnings.is_empty(), !of_the_file_system.contains(option), "{option}: {:?}", bundle.warnings);
    }
}

fn lines(resources: Value) -> (Vec<String>, Vec<String>) {
    let resources = crate::spec::read(resources.to_string().as_bytes()).unwrap();
    let Limits { v1, v2, .. } = limits(&resources).unwrap();
    let text = |settings: Vec<isolate::container::Setting>| {
        settings
            .iter()
            .map(|one| {
                let lacking = match &one.lacking {
                    Lacking::Refused => String::new(),
                    Lacking::Ignored => " if there".to_owned(),
                    Lacking::Instead { file, value } => format!(" or {file}={value}"),
                };
                format!("{} {}={}{lacking}", one.controller, one.file, one.value)
            })
            .collect()
    };
    (text(v1), text(v2))
}

#[test]
fn limits_are_said_in_both_versions_words() {
    let (v1, v2) = lines(json!({
        "cpu": {"shares": 1024, "quota": 20000, "period": 50000, "cpus": "0-1"},
        "memory": {"limit": 1000, "swap": 1500, "reservation": -1},
        "pids": {"limit": 10},
        "blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 9}],
    }));
    assert_eq!(
        v1,
        [
            "cpu cpu.shares=1024",
            "cpu cpu.cfs_period_us=50000",
            "cpu cpu.cfs_quota_us=20000",
            "cpuset cpuset.cpus=0-1",
            "memory memory.limit_in_bytes=1000",
            "memory memory.memsw.limit_in_bytes=1500",
            "memory memory.soft_limit_in_bytes=-1",
            "pids pids.max=10",
            "blkio blkio.bfq.weight=500 or blkio.weight=500",
            "blkio blkio.throttle.read_bps_device=8:0 7",
            "hugetlb hugetlb.2MB.limit_in_bytes=9",
            "hugetlb hugetlb.2MB.rsvd.limit_in_bytes=9 if there",
        ]
    );
    assert_eq!(
        v2,
        [
            "cpu cpu.weight=39",
            "cpu cpu.max=20000 50000",
            "cpuset cpuset.cpus=0-1",
            "memory memory.max=1000",
            "memory memory.swap.max=500",
            "memory memory.low=max",
            "pids pids.max=10",
            "io io.bfq.weight=500 or io.weight=4950",
            "io io.max=8:0 rbps=7",
            "hugetlb hugetlb.2MB.max=9",
            "hugetlb hugetlb.2MB.rsvd.max=9 if there",
        ]
    );
    let (v1, v2) = lines(json!({"unified": {"memory.high": "5"}, "pids": {"limit": -1}}));
    assert_eq!(v1, ["pids pids.max=max", "cgroup2 memory.high=5"]);
    assert_eq!(v2, ["pids pids.max=max", "memory memory.high=5"]);
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let check = |value: Value, reason: &str| refused("/linux/resources", value, reason);
    check(json!({"memory": {"limit": 1000, "swap": 500}}), "at least `limit`");
    check(json!({"memory": {"swap": 500}}), "takes a `limit`");
    check(json!({"memory": {"swappiness": 101}}), "swappiness");
    check(json!({"cpu": {"cpus": "all\n"}}), "list of numbers");
    check(json!({"blockIO": {"weight": 5}}), "weight");
    check(json!({"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}), "not a size");
    check(json!({"unified": {"../x.y": "1"}}), "no file of a cgroup");
    check(json!({"devices": [{"allow": true, "access": "x"}]}), "access");
    check(json!({"devices": [{"allow": true, "type": "p"}]}), "kind of device");
    check(json!({"rdma": []}), "invalid type");
}

#[test]
fn device_rules_are_a_refusal_of_all_what_is_listed_and_what_every_container_has() {
    let rule = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"});
    let rules = accepted("/linux/resources", json!({"devices": [rule]})).limits.devices;
    assert!(!rules[0].allow && rules[0].kind.is_none());
    assert_eq!((rules[1].major, rules[1].minor, rules[1].mknod), (Some(10), Some(229), false));
    assert_eq!(rules[2..], DeviceRule::always());
}

#[test]
fn ids_are_names() {
    for id in ["a", "A.b-c_d+1", &"x".repeat(255)] {
        check_id(id).unwrap();
    }
    for id in ["", ".", "..", "a/b", "a b", "a\nb", "a\0", "ä", &"x".repeat(256)] {
        assert!(check_id(id).unwrap_err().contains("not a container's id"), "{id:?}");
    }
}
