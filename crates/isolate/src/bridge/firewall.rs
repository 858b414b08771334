//! What stars on a bridge may reach, as rules of iptables.
//!
//! The rules are a text that `iptables-restore` applies whole or not at all. Every rule names the bridge, and with that
//! they are found again and removed, whoever made them and whatever was added around them. They are iptables' and not
//! nftables' of our own: where Docker refuses to forward by default, only a rule in the same chain says otherwise.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use super::subnet::Subnet;

/// Where link-local addresses are, among them the clouds' metadata services: RFC 3927.
const LINK_LOCAL: &str = "169.254.0.0/16";
/// How long to wait for another program that changes rules, in seconds. The nursery waits with it, so it is short.
const PATIENCE: &str = "5";

/// Puts the rules of a bridge in place.
pub(super) fn put_up(bridge: &str, subnet: Subnet) -> io::Result<()> {
    take_down(bridge)?;
    restore(&rules(bridge, subnet))
}

/// Removes every rule that names the bridge.
pub(super) fn take_down(bridge: &str) -> io::Result<()> {
    let saved = run(Command::new("iptables-save"), "")?;
    match removal(&String::from_utf8_lossy(&saved), bridge) {
        text if text.is_empty() => Ok(()),
        text => restore(&text),
    }
}

/// Outward goes everything but link-local; inward only answers; nothing reaches the host itself or another star.
fn rules(bridge: &str, subnet: Subnet) -> String {
    // A rule inserted later stands before: read the three of FORWARD from the last to the first.
    format!(
        "*filter\n\
         :{bridge} - [0:0]\n\
         -A {bridge} -o {bridge} -j DROP\n\
         -A {bridge} -d {LINK_LOCAL} -j DROP\n\
         -A {bridge} -j ACCEPT\n\
         -I FORWARD -o {bridge} -j DROP\n\
         -I FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -I FORWARD -i {bridge} -j {bridge}\n\
         -I INPUT -i {bridge} -j DROP\n\
         COMMIT\n\
         *nat\n\
         -A POSTROUTING -s {subnet} ! -o {bridge} -j MASQUERADE\n\
         COMMIT\n"
    )
}

/// From what `iptables-save` printed to what removes every rule and chain of the bridge; empty if there is none.
fn removal(saved: &str, bridge: &str) -> String {
    let mut text = String::new();
    for table in saved.split_inclusive("COMMIT\n") {
        let Some(name) = table.lines().find(|line| line.starts_with('*')) else { continue };
        let names_it = |line: &&str| line.split_whitespace().any(|word| word == bridge);
        let rules = table.lines().filter_map(|line| line.strip_prefix("-A ")).filter(names_it);
        let chain = format!(":{bridge} ");
        let has_chain = table.lines().any(|line| line.starts_with(&chain));
        // The chain's own rules go with it.
        let jumps = rules.filter(|rule| !rule.starts_with(&chain[1..]));
        let mut lines: Vec<String> = jumps.map(|rule| format!("-D {rule}\n")).collect();
        if has_chain {
            lines.push(format!("-F {bridge}\n-X {bridge}\n"));
        }
        if !lines.is_empty() {
            text += &format!("{name}\n{}COMMIT\n", lines.concat());
        }
    }
    text
}

fn restore(text: &str) -> io::Result<()> {
    let mut command = Command::new("iptables-restore");
    command.args(["--noflush", "--wait", PATIENCE]);
    run(command, text).map(drop)
}

fn run(mut command: Command, input: &str) -> io::Result<Vec<u8>> {
    // Debian has them where an agent started by an ordinary login does not look.
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::new(io::ErrorKind::NotFound, format!("the program `{name}` is missing (package `iptables`)"))
        }
        _ => error,
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it ends before it has read all, its exit status and its words say why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let Output { status, stdout, stderr } = child.wait_with_output()?;
    if status.success() {
        return Ok(stdout);
    }
    let words = String::from_utf8_lossy(&stderr);
    let first = words.lines().next().unwrap_or("no reason given");
    Err(io::Error::other(format!("`{name}` failed: {first}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_the_bridge_is_removed() {
        let saved = "# Generated\n\
            *filter\n\
            :INPUT ACCEPT [12:345]\n\
            :rads-1 - [0:0]\n\
            :rads-12 - [0:0]\n\
            -A INPUT -i rads-1 -j DROP\n\
            -A INPUT -i rads-12 -j DROP\n\
            -A INPUT -p tcp --dport 22 -j ACCEPT\n\
            -A FORWARD -i rads-1 -j rads-1\n\
            -A rads-1 -o rads-1 -j DROP\n\
            COMMIT\n\
            *raw\n\
            -A PREROUTING -j ACCEPT\n\
            COMMIT\n\
            *nat\n\
            -A POSTROUTING -s 10.213.0.0/22 ! -o rads-1 -j MASQUERADE\n\
            COMMIT\n";
        let expected = "*filter\n\
            -D INPUT -i rads-1 -j DROP\n\
            -D FORWARD -i rads-1 -j rads-1\n\
            -F rads-1\n\
            -X rads-1\n\
            COMMIT\n\
            *nat\n\
            -D POSTROUTING -s 10.213.0.0/22 ! -o rads-1 -j MASQUERADE\n\
            COMMIT\n";
        assert_eq!(removal(saved, "rads-1"), expected);
        assert_eq!(removal(saved, "rads-2"), "");
        assert_eq!(removal("", "rads-1"), "");
    }
}
