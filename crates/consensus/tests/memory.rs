//! What a voter holds that has nothing to do. Alone in its process: others would be counted too.

mod support;

use support::Cluster;

/// Memory of this process's own, in bytes: without pages of files.
fn own() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

/// A library below openraft, as it is published, makes 26 MiB of tables for its first histogram (docs/adr/0041).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_idle_voters_hold_a_few_mebibytes() {
    let before = own();
    let cluster = Cluster::start(3).await;
    let held = own() - before;
    assert!(held < 16 << 20, "{} MiB", held >> 20);
    drop(cluster);
}
