//! What there is: states, lists, processes, and an example to begin with.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use serde_json::{Value, json};

use super::Context;
use crate::cli::{self, Form};

pub(crate) fn state(context: &Context<'_>, id: &str) -> Result<(), String> {
    let folder = context.store.find(id)?;
    let record = folder.load()?;
    let (status, pid) = folder.status(&record);
    print(&pretty(&record.state(status, pid)));
    Ok(())
}

pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// A reader that went away is no error.
pub(super) fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

pub(crate) fn list(context: &Context<'_>, args: &cli::List) -> Result<(), String> {
    let mut rows = Vec::new();
    for id in context.store.ids()? {
        // One that is being made or deleted at this moment is not there yet or no more.
        let Ok(folder) = context.store.find(&id) else { continue };
        let Ok(record) = folder.load() else { continue };
        let (status, pid) = folder.status(&record);
        let owner = record.owner.to_string();
        rows.push((id, pid.unwrap_or(0), status.name(), record.bundle.display().to_string(), record, owner));
    }
    if args.quiet {
        rows.iter().for_each(|row| print(&row.0));
        return Ok(());
    }
    if args.format == Form::Json {
        let all: Vec<Value> = rows
            .iter()
            .map(|(id, pid, status, bundle, record, owner)| {
                json!({
                    "ociVersion": record.oci_version,
                    "id": id,
                    "pid": pid,
                    "status": status,
                    "bundle": bundle,
                    "rootfs": record.root,
                    "created": record.created,
                    "annotations": record.annotations,
                    "owner": owner,
                })
            })
            .collect();
        print(&Value::from(all).to_string());
        return Ok(());
    }
    let mut table = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    table.extend(rows.into_iter().map(|(id, pid, status, bundle, record, owner)| {
        [id, pid.to_string(), status.to_owned(), bundle, record.created, owner]
    }));
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    for row in &table {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}   ")).collect();
        print(line.trim_end());
    }
    Ok(())
}

pub(crate) fn ps(context: &Context<'_>, args: &cli::Ps) -> Result<(), String> {
    let record = context.store.find(&args.id)?.load()?;
    if record.groups.is_empty() {
        return Err(format!("container `{}` has no cgroup, so its processes are not known", args.id));
    }
    let pids = record.groups.pids().map_err(|error| format!("cannot list the processes of `{}`: {error}", args.id))?;
    if args.format == Form::Json {
        print(&json!(pids).to_string());
        return Ok(());
    }
    let arguments = if args.args.is_empty() { vec!["-ef".to_owned()] } else { args.args.clone() };
    let output = Command::new("ps").args(&arguments).output().map_err(|error| format!("cannot run `ps`: {error}"))?;
    if !output.status.success() {
        return Err(format!("`ps` failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|word| word == "PID");
    let column = column.ok_or("the output of `ps` has no column `PID`")?;
    print(head);
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid: u32| pids.contains(&pid)) {
            print(line);
        }
    }
    Ok(())
}

/// The example; what an ordinary user cannot have is left out of it or changed.
pub(crate) fn spec(args: &cli::Spec) -> Result<(), String> {
    let mut example: Value = serde_json::from_str(include_str!("example.json"))
        .map_err(|error| format!("the example is broken: {error}"))?;
    if args.rootless {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let linux = &mut example["linux"];
        linux["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
        linux["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
        // Its own network would have nothing but loopback, and the host's is the user's already.
        let kept: Vec<Value> = linux["namespaces"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| one["type"] != "network")
            .cloned()
            .chain([json!({"type": "user"})])
            .collect();
        linux["namespaces"] = Value::from(kept);
        if let Some(linux) = linux.as_object_mut() {
            linux.remove("resources");
        }
        for mount in example["mounts"].as_array_mut().into_iter().flatten() {
            if mount["destination"] == "/sys" {
                *mount = json!({"destination": "/sys", "type": "none", "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
            }
            // A group that is not mapped.
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|option| option != "gid=5");
            }
        }
        if let Some(mounts) = example["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        }
    }
    let path = args.bundle.join("config.json");
    let open = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
    let mut file = open.map_err(|error| format!("cannot make `{}`: {error}", path.display()))?;
    writeln!(file, "{}", pretty(&example)).map_err(|error| format!("cannot write `{}`: {error}", path.display()))
}
