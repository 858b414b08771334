//! The other nodes, as the agent reaches them, and clocks: theirs beside this machine's, and who keeps this one right.

use std::time::Duration;

use api::{Neighbour, Survey};

use super::{Finding, State, millis};

/// Clocks that are further apart than this make times in logs and events mislead; nothing safe rests on them.
const CLOCKS_APART_MS: u64 = 1_000;

/// `synchronised` is what the kernel says of its clock.
pub(super) fn judge_clock(synchronised: &Result<bool, String>, survey: Option<&Survey>) -> Finding {
    let warns = |detail: String, help: &str| Finding {
        what: "clock".to_owned(),
        state: State::Warns,
        detail,
        help: Some(help.to_owned()),
    };
    let keep = "run an NTP client: chrony, systemd-timesyncd or ntpd";
    if let Some(survey) = survey {
        let known = survey.nodes.iter().filter(|node| node.clock_ahead_ms.is_some()).count();
        // Where most others are off to the same side, it is this one that is off.
        for (ahead, word) in [(true, "behind"), (false, "ahead of")] {
            let there = survey.nodes.iter().filter_map(apart).filter(|apart| (*apart > 0) == ahead);
            let mut there: Vec<u64> = there.map(i64::unsigned_abs).collect();
            there.sort_unstable();
            if known >= 2 && there.len() * 2 > known {
                let median = Duration::from_millis(there[there.len() / 2]);
                let detail = format!("it is {} {word} those of most other nodes", seconds(median));
                return warns(detail, keep);
            }
        }
    }
    match synchronised {
        Ok(true) => Finding {
            what: "clock".to_owned(),
            state: State::Works,
            detail: "synchronised, says the kernel".to_owned(),
            help: None,
        },
        Ok(false) => warns("nothing keeps it right: the kernel says it is not synchronised".to_owned(), keep),
        Err(reason) => warns(format!("the kernel does not say whether it is synchronised: {reason}"), keep),
    }
}

pub(super) fn judge(survey: &Survey) -> Vec<Finding> {
    survey.nodes.iter().map(judge_one).collect()
}

fn judge_one(node: &Neighbour) -> Finding {
    let Neighbour { name, address, .. } = node;
    let port = address.rsplit_once(':').map_or(address.as_str(), |(_, port)| port);
    let what = format!("node {name}");
    let warns =
        |detail: String, help: String| Finding { what: what.clone(), state: State::Warns, detail, help: Some(help) };
    if let Some(why) = &node.not_connected {
        let detail = format!("`{address}` takes no connection: {why}");
        return warns(detail, format!("let its agent run, and TCP port {port} through to it"));
    }
    if let Some(why) = &node.not_answered {
        let detail = format!("`{address}` takes connections, but nobody answers: {why}");
        return warns(detail, "see what its agent last said in `agent.log` there, and the clocks of both".to_owned());
    }
    if !node.datagrams {
        let detail = format!("`{address}` answers over TCP, but no datagram to the same port");
        return warns(
            detail,
            format!("let UDP port {port} through, both ways: without it nodes seem dead that are not"),
        );
    }
    let way = Duration::from_micros(node.round_trip_us.unwrap_or_default());
    if let Some(apart) = apart(node) {
        let word = if apart > 0 { "ahead of" } else { "behind" };
        let detail = format!("its clock is {} {word} this one's", seconds(Duration::from_millis(apart.unsigned_abs())));
        return warns(detail, "run an NTP client on both: chrony, systemd-timesyncd or ntpd".to_owned());
    }
    let clock = match node.clock_ahead_ms {
        Some(ahead) => format!(", its clock within {} ms", ahead.unsigned_abs().saturating_add(1)),
        None => String::new(),
    };
    let detail = format!("`{address}`: TCP and UDP answer, a request takes {}{clock}", millis(way));
    Finding { what, state: State::Works, detail, help: None }
}

/// How far a node's clock is ahead, when that is more than it may be, whatever the way there and back hides.
fn apart(node: &Neighbour) -> Option<i64> {
    let ahead = node.clock_ahead_ms?;
    let unsure = node.round_trip_us.unwrap_or_default() / 2_000;
    (ahead.unsigned_abs().saturating_sub(unsure) > CLOCKS_APART_MS).then_some(ahead)
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Neighbour {
        Neighbour {
            node: model::NodeId(7),
            name: name.parse().unwrap(),
            address: "10.0.0.2:7946".to_owned(),
            not_connected: None,
            not_answered: None,
            round_trip_us: Some(400),
            clock_ahead_ms: Some(3),
            datagrams: true,
        }
    }

    #[test]
    fn what_is_wrong_with_a_node_is_told_nearest_first() {
        let check = |change: &dyn Fn(&mut Neighbour), state: State, says: &str| {
            let mut node = node("b");
            change(&mut node);
            let found = judge_one(&node);
            assert_eq!((found.what.as_str(), found.state), ("node b", state), "{found:?}");
            let text = format!("{} {}", found.detail, found.help.clone().unwrap_or_default());
            assert!(text.contains(says), "{found:?}");
        };
        check(&|_| {}, State::Works, "0.40 ms");
        let unreachable = |node: &mut Neighbour| {
            (node.not_connected, node.not_answered) = (Some("refused".to_owned()), Some("refused".to_owned()));
            node.datagrams = false;
        };
        check(&unreachable, State::Warns, "TCP port 7946");
        check(&|node| node.not_answered = Some("no answer".to_owned()), State::Warns, "agent.log");
        check(&|node| node.datagrams = false, State::Warns, "UDP port 7946");
        check(&|node| node.clock_ahead_ms = Some(2_500), State::Warns, "2.5 s ahead of");
        check(&|node| node.clock_ahead_ms = Some(-86_400_000), State::Warns, "86400.0 s behind");
        check(&|node| node.clock_ahead_ms = Some(1_000), State::Works, "within 1001 ms");
        // A slow answer may be all there is to it.
        let slow = |node: &mut Neighbour| (node.clock_ahead_ms, node.round_trip_us) = (Some(1_500), Some(1_200_000));
        check(&slow, State::Works, "within");
    }

    #[test]
    fn it_is_this_clock_that_is_wrong_where_most_others_say_so() {
        let check = |ahead: &[i64], synchronised: Result<bool, String>, state: State, says: &str| {
            let nodes = ahead.iter().map(|ahead| Neighbour { clock_ahead_ms: Some(*ahead), ..node("b") }).collect();
            let found = judge_clock(&synchronised, Some(&Survey { listen: None, nodes }));
            assert_eq!(found.state, state, "{ahead:?} {found:?}");
            assert!(found.detail.contains(says), "{ahead:?} {found:?}");
        };
        check(&[0, 0], Ok(true), State::Works, "synchronised");
        check(&[0, 0], Ok(false), State::Warns, "not synchronised");
        check(&[0, 0], Err("no".to_owned()), State::Warns, "does not say");
        check(&[5_000, 5_000, 0], Ok(true), State::Warns, "5.0 s behind");
        check(&[-9_000, -5_000, -5_000], Ok(true), State::Warns, "5.0 s ahead of");
        // One against one may be either, and who is alone in it is told for itself.
        check(&[5_000], Ok(true), State::Works, "");
        check(&[5_000, 0], Ok(true), State::Works, "");
        check(&[5_000, 5_000, 0, 0], Ok(true), State::Works, "");
        check(&[5_000, -5_000], Ok(true), State::Works, "");
        assert_eq!(judge_clock(&Ok(true), None).state, State::Works);
    }
}
