//! The options of mounts, judged.

use std::path::{Path, PathBuf};

use isolate::container::plan::{Attributes, BindIdMap, Kind, Mount, Namespaces, Propagation, Source};

use super::{check_absolute, check_path, id_maps};
use crate::spec;

/// What an option does to the mount itself: name, bits set, bits cleared.
const ATTRIBUTES: [(&str, u64, u64); 20] = [
    ("async", 0, 0),
    ("atime", 0, Attributes::ACCESS_TIME),
    ("dev", 0, Attributes::NO_DEV),
    ("diratime", 0, Attributes::NO_FOLDER_ACCESS_TIME),
    ("exec", 0, Attributes::NO_EXEC),
    ("noatime", Attributes::NO_ACCESS_TIME, Attributes::ACCESS_TIME),
    ("nodev", Attributes::NO_DEV, 0),
    ("nodiratime", Attributes::NO_FOLDER_ACCESS_TIME, 0),
    ("noexec", Attributes::NO_EXEC, 0),
    ("norelatime", 0, Attributes::ACCESS_TIME),
    ("nostrictatime", 0, Attributes::ACCESS_TIME),
    ("nosuid", Attributes::NO_SUID, 0),
    ("nosymfollow", Attributes::NO_LINKS, 0),
    ("relatime", 0, Attributes::ACCESS_TIME),
    ("ro", Attributes::READ_ONLY, 0),
    ("rw", 0, Attributes::READ_ONLY),
    ("strictatime", Attributes::STRICT_ACCESS_TIME, Attributes::ACCESS_TIME),
    ("suid", 0, Attributes::NO_SUID),
    ("symfollow", 0, Attributes::NO_LINKS),
    ("defaults", 0, 0),
];
/// Of a file system, not of one mount of it: set and cleared by the kernel's own words.
const OF_THE_FILE_SYSTEM: [(&str, Option<&str>); 12] = [
    ("dirsync", Some("dirsync")),
    ("iversion", Some("iversion")),
    ("lazytime", Some("lazytime")),
    ("loud", None),
    ("mand", Some("mand")),
    ("noiversion", None),
    ("nolazytime", Some("nolazytime")),
    ("nomand", Some("nomand")),
    ("silent", None),
    ("sync", Some("sync")),
    ("nouser", None),
    ("_netdev", None),
];
/// Those that go for the whole tree of a bind begin with this.
const RECURSIVE: &str = "r";

/// All options that are understood, for `features`.
pub(crate) const KNOWN_OPTIONS: [&str; 61] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "noiversion",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "sync",
    "tmpcopyup",
    "unbindable",
];

pub(super) fn mounts(
    specs: &[spec::Mount],
    bundle: &Path,
    namespaces: &Namespaces,
    warnings: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Result<Vec<Mount>, String> {
    specs.iter().map(|spec| mount(spec, bundle, namespaces, warnings, notes)).collect()
}

pub(super) fn propagation(text: &str) -> Option<Propagation> {
    Some(match text {
        "shared" => Propagation::Shared { recursive: false },
        "rshared" => Propagation::Shared { recursive: true },
        "slave" => Propagation::Slave { recursive: false },
        "rslave" => Propagation::Slave { recursive: true },
        "private" => Propagation::Private { recursive: false },
        "rprivate" => Propagation::Private { recursive: true },
        "unbindable" => Propagation::Unbindable { recursive: false },
        "runbindable" => Propagation::Unbindable { recursive: true },
        _ => return None,
    })
}

fn add(attributes: &mut Attributes, (set, clear): (u64, u64)) {
    // The later of two that contradict each other counts.
    attributes.set = attributes.set & !clear | set;
    attributes.clear = attributes.clear & !(set & !Attributes::ACCESS_TIME) | clear;
}

fn mount(
    spec: &spec::Mount,
    bundle: &Path,
    namespaces: &Namespaces,
    warnings: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Result<Mount, String> {
    check_path("mounts.destination", &spec.destination)?;
    check_path("mounts.source", &spec.source)?;
    if spec.destination.is_empty() {
        return Err("`mounts.destination` is missing".to_owned());
    }
    // Older versions of the specification allowed a relative one, meant from the root.
    let destination = match spec.destination.starts_with('/') {
        true => spec.destination.clone(),
        false => {
            notes.push(format!("`mounts.destination` `{}` is taken from the root", spec.destination.escape_debug()));
            format!("/{}", spec.destination)
        }
    };
    check_absolute("mounts.destination", &destination)?;
    if destination.split('/').all(|part| part.is_empty() || part == ".") {
        return Err("`mounts.destination` may not be the root itself".to_owned());
    }
    let mut attributes = Attributes::default();
    let mut recursive_attributes = Attributes::default();
    let mut propagations = Vec::new();
    let mut options: Vec<(String, Option<String>)> = Vec::new();
    let (mut bind, mut remount, mut copy_up, mut id_map) = (None, false, false, None);
    for option in &spec.options {
        check_path("mounts.options", option)?;
        let of = |name: &str| ATTRIBUTES.iter().find(|(known, ..)| *known == name).map(|&(_, set, clear)| (set, clear));
        match &**option {
            "bind" => bind = bind.or(Some(false)),
            "rbind" => bind = Some(true),
            "remount" => remount = true,
            "tmpcopyup" => copy_up = true,
            "idmap" => id_map = Some(false),
            "ridmap" => id_map = Some(true),
            "relatime" => add(&mut attributes, of("relatime").expect("listed")),
            name => {
                let whole_tree = name.strip_prefix(RECURSIVE).and_then(of);
                if let Some(propagation) = propagation(name) {
                    propagations.push(propagation);
                } else if let Some(change) = of(name) {
                    add(&mut attributes, change);
                } else if let Some(change) = whole_tree {
                    add(&mut recursive_attributes, change);
                } else if let Some((_, word)) = OF_THE_FILE_SYSTEM.iter().find(|(known, _)| *known == name) {
                    options.extend(word.map(|word| (word.to_owned(), None)));
                } else {
                    options.push(match name.split_once('=') {
                        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                        None => (name.to_owned(), None),
                    });
                }
            }
        }
    }
    let mappings = !spec.uid_mappings.is_empty() || !spec.gid_mappings.is_empty();
    if bind.is_none() && (spec.kind == "bind" || spec.kind == "rbind") {
        bind = Some(spec.kind == "rbind");
    }
    let id_map = match (id_map, mappings) {
        (None, false) => None,
        (recursive, _) => {
            if bind.is_none() {
                return Err(format!("mount `{destination}`: only a bind can have mapped ids"));
            }
            if spec.uid_mappings.is_empty() != spec.gid_mappings.is_empty() {
                return Err(format!("mount `{destination}`: `uidMappings` and `gidMappings` go together"));
            }
            if !mappings && !namespaces.is_apart(Kind::User) {
                return Err(format!("mount `{destination}`: `idmap` takes mappings or a `user` namespace"));
            }
            Some(BindIdMap {
                uid_map: id_maps("mounts.uidMappings", &spec.uid_mappings)?,
                gid_map: id_maps("mounts.gidMappings", &spec.gid_mappings)?,
                recursive: recursive.unwrap_or(false),
            })
        }
    };
    let source = match (remount, bind) {
        (true, _) => Source::Remount,
        (false, Some(recursive)) => {
            if spec.source.is_empty() {
                return Err(format!("mount `{destination}`: a bind takes a `source`"));
            }
            if let Some((option, _)) = options.first() {
                warnings
                    .push(format!("mount `{destination}`: option `{}` means nothing to a bind", option.escape_debug()));
            }
            Source::Bind { path: absolute(bundle, &spec.source), recursive, id_map }
        }
        (false, None) if spec.kind == "cgroup" || spec.kind == "cgroup2" => Source::Cgroup,
        (false, None) => {
            if spec.kind.is_empty() {
                return Err(format!("mount `{destination}`: `type` is missing"));
            }
            if copy_up && spec.kind != "tmpfs" {
                return Err(format!("mount `{destination}`: `tmpcopyup` is for `tmpfs`"));
            }
            Source::FileSystem { kind: spec.kind.clone(), source: spec.source.clone(), options, copy_up }
        }
    };
    Ok(Mount { destination, source, attributes, recursive_attributes, propagation: propagations })
}

/// A relative source is meant from the bundle.
fn absolute(bundle: &Path, source: &str) -> PathBuf {
    bundle.join(source)
}
