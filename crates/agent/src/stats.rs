//! Counters of stars: what their machines charge them with, and what all nodes have passed on to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{Caller, Client, Passed, StarStats, StarView};
use futures_util::future::join_all;
use model::{Code, NodeId, Problem, ServiceKey, Standing, StarId, StarPhase};
use node::Node;
use tokio::time::timeout;

use crate::beside::beside;
use crate::clock;
use crate::control::Remote;

/// Longest wait for the counters of one node; who asks for all shall not wait for one that hangs.
const ASK_WITHIN: Duration = Duration::from_secs(3);

impl Remote {
    /// Of one star of this node, with what all nodes passed on to it.
    pub(crate) async fn stats_of(&self, star: StarView, caller: Caller) -> Result<StarStats, Problem> {
        let mut stats = BTreeMap::from([(star.id, (star.node, self.counters(star.clone()).await?))]);
        self.add_passed(&star.service, caller, &mut stats).await?;
        let (_, stats) = stats.remove(&star.id).ok_or_else(|| Problem::new(Code::Internal, "a star was lost"))?;
        Ok(stats)
    }

    /// Of all stars of a service, wherever they are; of those here when another node asks.
    pub(crate) async fn stats_of_service(
        &self,
        service: ServiceKey,
        caller: Caller,
    ) -> Result<Vec<StarStats>, Problem> {
        let of_service = service.clone();
        let running = move |node: &Node| {
            let mut stars = node.star_views();
            stars.retain(|star| star.service == of_service && star.phase != StarPhase::Ended);
            stars
        };
        let stars = self.looker().look(running).await?;
        let me = self.far.as_ref().map(|far| far.me());
        let (far, own): (Vec<StarView>, Vec<StarView>) =
            stars.iter().cloned().partition(|star| me.is_some_and(|me| star.node != me));
        let mut stats = BTreeMap::new();
        for star in own {
            stats.insert(star.id, (star.node, self.counters(star).await?));
        }
        if caller.from.is_some() {
            return Ok(stats.into_values().map(|(_, stats)| stats).collect());
        }
        let nodes = far.iter().map(|star| star.node).collect::<std::collections::BTreeSet<NodeId>>();
        let of_service = service.clone();
        let ask = move |client: Client| {
            let service = of_service.clone();
            async move { client.service_stats(&service).await }
        };
        let asked = self.ask_all(nodes, caller.clone(), ask).await;
        let mut problems = BTreeMap::new();
        for (node, answer) in asked {
            match answer {
                Ok(answer) => stats.extend(answer.into_iter().map(|one| (one.star, (node, one)))),
                Err(problem) => drop(problems.insert(node, problem.message)),
            }
        }
        for star in far {
            if let Some(problem) = problems.get(&star.node) {
                stats.insert(star.id, (star.node, unread(star, problem.clone())));
            }
        }
        self.add_passed(&service, caller, &mut stats).await?;
        // In the order in which stars are listed.
        Ok(stars.iter().filter_map(|star| stats.remove(&star.id)).map(|(_, stats)| stats).collect())
    }

    /// What came in on this node for a service, by star.
    pub(crate) fn passed_here(&self, service: &ServiceKey) -> Vec<Passed> {
        let traffic = self.proxy.stats(service).into_iter();
        traffic
            .map(|(star, traffic)| Passed {
                star,
                requests: traffic.requests,
                in_flight: traffic.in_flight,
                errors: traffic.errors,
                server_errors: traffic.server_errors,
                latency_us_sum: traffic.latency_us_sum,
            })
            .collect()
    }

    /// What all nodes have passed on to the stars of a service, those that answer.
    async fn passed_everywhere(
        &self,
        service: &ServiceKey,
        caller: Caller,
    ) -> Result<Vec<(NodeId, Vec<Passed>)>, Problem> {
        let here = (self.node, self.passed_here(service));
        if self.far.is_none() {
            return Ok(vec![here]);
        }
        let me = self.node;
        let others = move |node: &Node| {
            let up = node.state().nodes.iter().filter(|(_, record)| record.standing == Standing::Up);
            up.map(|(node, _)| *node).filter(|node| *node != me).collect::<Vec<NodeId>>()
        };
        let others = self.looker().look(others).await?;
        let of_service = service.clone();
        let ask = move |client: Client| {
            let service = of_service.clone();
            async move { client.passed(&service).await }
        };
        let asked = self.ask_all(others, caller, ask).await;
        let elsewhere = asked.into_iter().filter_map(|(node, answer)| Some((node, answer.ok()?)));
        Ok(elsewhere.chain([here]).collect())
    }

    /// What stars of a service made of requests, wherever these came in. Nodes that do not answer are left out.
    pub(crate) async fn answers_of(&self, service: &ServiceKey) -> Vec<(StarId, node::Answers)> {
        let everywhere = self.passed_everywhere(service, Caller::owner(0)).await.unwrap_or_default();
        let all = everywhere.into_iter().flat_map(|(_, passed)| passed);
        let answers = |passed: Passed| {
            let failed = passed.errors + passed.server_errors;
            (passed.star, node::Answers { requests: passed.requests, failed })
        };
        all.map(answers).collect()
    }

    /// Adds to each star what nodes other than its own passed on to it: its own has counted its part already.
    async fn add_passed(
        &self,
        service: &ServiceKey,
        caller: Caller,
        stats: &mut BTreeMap<StarId, (NodeId, StarStats)>,
    ) -> Result<(), Problem> {
        if self.far.is_none() {
            return Ok(());
        }
        for (node, passed) in self.passed_everywhere(service, caller).await? {
            for passed in passed {
                let Some((_, stats)) = stats.get_mut(&passed.star).filter(|(home, _)| *home != node) else { continue };
                stats.requests += passed.requests;
                stats.in_flight += passed.in_flight;
                stats.errors += passed.errors;
                stats.latency_us_sum += passed.latency_us_sum;
            }
        }
        Ok(())
    }

    /// Asks nodes for the same, all at once.
    pub(crate) async fn ask_all<T: Send, F: Future<Output = Result<T, Problem>> + Send>(
        &self,
        nodes: impl IntoIterator<Item = NodeId>,
        caller: Caller,
        ask: impl Fn(Client) -> F + Clone + Send,
    ) -> Vec<(NodeId, Result<T, Problem>)> {
        let Some(far) = &self.far else { return Vec::new() };
        let mut asking = Vec::new();
        for node in nodes {
            let (far, ask, caller) = (far.clone(), ask.clone(), caller.clone());
            asking.push(async move {
                let answer = async {
                    let client = far.client(node, caller).await?;
                    ask(client).await
                };
                let late = || Problem::new(Code::Timeout, format!("node `{node}` does not answer in time"));
                (node, timeout(ASK_WITHIN, answer).await.unwrap_or_else(|_| Err(late())))
            });
        }
        join_all(asking).await
    }

    /// Reads the counters of a star of this node; one that has ended has none.
    async fn counters(&self, star: StarView) -> Result<StarStats, Problem> {
        let traffic = self.proxy.stats(&star.service).get(&star.id).copied().unwrap_or_default();
        let id = star.id;
        let limits = move |node: &Node| node.state().stars.get(&id).map(|star| star.template.limits);
        let limits = self.looker().look(limits).await?;
        let (folder, disk) = (self.data_dir.clone(), Arc::clone(&self.disk));
        let read = move || Ok((isolate::stats(&folder, id).unwrap_or_default(), disk.of(&folder, id)));
        let (used, disk_bytes) = beside(read).await?;
        Ok(StarStats {
            star: star.id,
            name: star.name,
            service: star.service,
            at: clock::wall(),
            cpu_usage_us: used.cpu_usage_us,
            throttled_us: used.throttled_us,
            throttled_periods: used.nr_throttled,
            memory_bytes: used.memory_bytes,
            memory_working_set_bytes: used.memory_working_set,
            memory_peak_bytes: used.memory_peak,
            memory_limit_bytes: limits.and_then(|limits| limits.memory).map(|bytes| bytes.0),
            disk_bytes,
            network_received_bytes: used.network_received,
            network_sent_bytes: used.network_sent,
            network_loopback_bytes: used.network_loopback,
            pids: used.pids,
            fds: used.fds,
            restarts: star.restarts,
            requests: traffic.requests,
            in_flight: traffic.in_flight,
            errors: traffic.errors,
            latency_us_sum: traffic.latency_us_sum,
            problem: None,
        })
    }
}

/// A star of which nothing can be read, and why.
fn unread(star: StarView, problem: String) -> StarStats {
    StarStats {
        star: star.id,
        name: star.name,
        service: star.service,
        at: clock::wall(),
        cpu_usage_us: None,
        throttled_us: None,
        throttled_periods: None,
        memory_bytes: None,
        memory_working_set_bytes: None,
        memory_peak_bytes: None,
        memory_limit_bytes: None,
        disk_bytes: None,
        network_received_bytes: None,
        network_sent_bytes: None,
        network_loopback_bytes: None,
        pids: None,
        fds: None,
        restarts: star.restarts,
        requests: 0,
        in_flight: 0,
        errors: 0,
        latency_us_sum: 0,
        problem: Some(problem),
    }
}
